/** Single answers become steady ones, as `delf_edge/camera/temporal_voting.py`; its head has the rules. */

import {OptionError} from '../errors.js';
import type {VoteOptions} from '../types.js';

const DEFAULTS: VoteOptions = {appear: 4, step: 2.5, miss: 1.5, cap: 7.5, frames: 2, hold: 2.5, cooldown: 1, several: false};

/** Something changed; see `Decision` in Python. */
export interface Decision {
  readonly change: 'appeared' | 'changed' | 'left';
  readonly landmark: string;
  readonly previous: string | null;
}

interface Evidence {
  score: number;
  frames: number;
  seen: number;
  unseen: number;
}

/** Gathers the answers to frames; all times in seconds, never decreasing. */
export class Voter {
  private readonly options: VoteOptions;
  private readonly evidence = new Map<string, Evidence>();
  private readonly there = new Map<string, number>(); // landmark -> when it was announced
  private readonly gone = new Map<string, number>();
  private unknown = 0;

  constructor(options: Partial<VoteOptions> = {}) {
    const o = (this.options = {...DEFAULTS, ...options});
    if (!(o.step > 0 && o.miss > 0 && o.appear > 0 && o.appear <= o.cap && o.frames >= 1)) {
      throw new OptionError(`step, miss and appear must be above 0, cap at least appear, frames at least 1: ${JSON.stringify(o)}`);
    }
    if (!(o.hold > 0 && o.cooldown >= 0)) throw new OptionError(`hold must be above 0, cooldown not negative: ${JSON.stringify(o)}`);
  }

  /** The landmarks that are there, in the order of their appearance. */
  get present(): readonly string[] {
    return [...this.there].sort(([, a], [, b]) => a - b).map(([name]) => name);
  }

  get state(): 'looking' | 'unknown' | 'present' {
    if (this.there.size) return 'present';
    return this.unknown >= Math.max(2, this.options.frames) ? 'unknown' : 'looking';
  }

  /** Whether another look at the very same scene would change nothing soon. */
  get settled(): boolean {
    return this.state !== 'looking' && ![...this.evidence].some(([name, e]) => !this.there.has(name) && e.score > 0);
  }

  /** Takes the answer to one frame: landmark -> probability; empty for "unknown". */
  observe(named: ReadonlyMap<string, number>, now: number): Decision[] {
    const o = this.options;
    for (const name of named.keys()) {
      if (!this.evidence.has(name)) this.evidence.set(name, {score: 0, frames: 0, seen: -Infinity, unseen: 0});
    }
    for (const [name, e] of this.evidence) {
      const probability = named.get(name);
      if (probability !== undefined) {
        const p = Math.min(Math.max(probability, 1e-6), 1 - 1e-6);
        e.score += Math.min(Math.log(p / (1 - p)), o.step);
        e.frames++;
        e.seen = now;
      } else e.score -= o.miss;
      e.score = Math.min(Math.max(e.score, 0), o.cap);
      if (e.score === 0) e.frames = 0;
    }
    this.unknown = named.size ? 0 : this.unknown + 1;
    return this.decide(now);
  }

  /** The scene is the same as in the last frame: what is there stays. */
  unchanged(now: number): Decision[] {
    for (const name of this.there.keys()) this.evidence.get(name)!.seen = now;
    return this.decide(now);
  }

  /** Nothing could be seen: only time passes. */
  tick(now: number): Decision[] {
    return this.decide(now);
  }

  private decide(now: number): Decision[] {
    const o = this.options, score = (name: string) => this.evidence.get(name)!.score;
    for (const e of this.evidence.values()) {
      e.unseen = e.seen >= now ? 0 : e.unseen + 1;
      if (now - e.seen > o.hold && e.unseen >= 2) [e.score, e.frames] = [0, 0]; // one slow frame makes nothing leave
    }
    let gone = this.present.filter(name => score(name) <= 0);
    let ready = [...this.evidence.keys()].filter(name => !this.there.has(name) && this.isReady(name, now)).sort((a, b) => score(b) - score(a));
    const decisions: Decision[] = [];
    if (ready.length && !o.several) {
      const rivals = this.present.filter(name => !gone.includes(name));
      if (rivals.length && score(rivals[0]) >= score(ready[0])) ready = [];
      else if (this.there.size) {
        const [old] = this.present;
        this.leave(old, now);
        gone = gone.filter(name => name !== old);
        decisions.push(this.arrive('changed', ready.shift()!, old, now));
      }
      ready = this.there.size ? [] : ready.slice(0, 1);
    }
    for (const name of gone) {
      this.leave(name, now);
      decisions.push({change: 'left', landmark: name, previous: null});
    }
    decisions.push(...ready.map(name => this.arrive('appeared', name, null, now)));
    for (const [name, e] of this.evidence) if (e.score <= 0 && !this.there.has(name)) this.evidence.delete(name);
    for (const [name, at] of this.gone) if (now - at > o.cooldown) this.gone.delete(name);
    return decisions;
  }

  private isReady(name: string, now: number): boolean {
    const e = this.evidence.get(name)!, o = this.options, rested = now - (this.gone.get(name) ?? -Infinity) >= o.cooldown;
    return rested && e.score >= o.appear && e.frames >= o.frames;
  }

  private arrive(change: Decision['change'], landmark: string, previous: string | null, now: number): Decision {
    this.there.set(landmark, now);
    return {change, landmark, previous};
  }

  private leave(name: string, now: number): void {
    this.there.delete(name);
    this.gone.set(name, now);
  }
}
