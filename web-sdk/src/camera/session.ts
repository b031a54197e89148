/** Frames of one camera become events: gate, query, vote; as `Watcher` in `delf_edge/camera/watcher.py`. */

import type {Picture} from '../images/resize.js';
import type {Answer, FrameResult, IdentifyOptions, SessionEvent, SessionOptions} from '../types.js';
import {Gate} from './frame_gate.js';
import {type Decision, Voter} from './temporal_voting.js';

const BUDGET_MS = 1000;

export class FrameWatcher {
  private gate: Gate;
  private voter: Voter;
  private seen = new Map<string, Answer>();
  private readonly identify: IdentifyOptions;

  constructor(private readonly options: SessionOptions) {
    this.gate = new Gate(options.gate);
    this.voter = new Voter(options.vote);
    this.identify = {deadlineMs: BUDGET_MS, ...options.identify, turns: false};
  }

  reset(): void {
    this.gate = new Gate(this.options.gate);
    this.voter = new Voter(this.options.vote);
    this.seen.clear();
  }

  /** Looks at one frame; `ask` answers it where it is worth a query. */
  async look(frame: Picture, now: number, ask: (frame: Picture, options: IdentifyOptions) => Promise<Answer>): Promise<FrameResult> {
    const verdict = this.gate.judge(frame, now, this.voter.settled);
    if (verdict === 'unchanged') return this.result(verdict, this.voter.unchanged(now), null);
    if (verdict !== 'look') return this.result(verdict, this.voter.tick(now), null);
    const answer = await ask(frame, this.identify), named = new Map<string, number>();
    if (answer.landmark !== null) {
      named.set(answer.landmark, answer.probability);
      this.seen.set(answer.landmark, answer);
    }
    return this.result(verdict, this.voter.observe(named, now), answer);
  }

  tick(now: number): FrameResult {
    return this.result('unchanged', this.voter.tick(now), null);
  }

  /** What a frame led to that nobody looked at. */
  dropped(): FrameResult {
    return this.result('dropped', [], null);
  }

  private result(verdict: FrameResult['verdict'], decisions: readonly Decision[], answer: Answer | null): FrameResult {
    const events = decisions.map(({change, landmark, previous}): SessionEvent => ({
      kind: change, landmark, previous, answer: this.seen.get(landmark) ?? null,
    }));
    for (const {change, landmark} of decisions) if (change === 'left') this.seen.delete(landmark);
    return {verdict, events, answer, state: this.voter.state, present: this.voter.present};
  }
}
