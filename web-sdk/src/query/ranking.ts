/** The order of a query's candidates: scores, certainty, probabilities; as `delf_edge/query/ranking.py`. */

import type {Calibration} from '../bundle/calibration.js';
import type {Candidate} from '../index/search.js';
import type {Match} from '../types.js';
import type {Verification} from '../verification.js';

/** What is looked up of a candidate: null where the image is not there. */
export type LookUp = (imageId: number) => {readonly name: string; readonly landmark: string} | null;

/** How many photos were searched, and how many show a landmark. */
export interface Counts {
  readonly searched: number;
  readonly ofLandmark: (landmark: string) => number;
}

export class CandidateRanking {
  readonly checked = new Map<number, Verification>();
  private readonly scores: Map<number, number>;
  private readonly strangers: number;

  constructor(
    private readonly calibration: Calibration,
    private readonly lookUp: LookUp,
    private readonly nFeatures: number,
    private readonly candidates: readonly Candidate[],
    strangers: readonly Candidate[],
    private readonly counts: Counts,
  ) {
    this.scores = new Map(candidates.map(c => [c.imageId, this.score(c, 0)]));
    this.strangers = calibration.strangers(strangers.map(c => this.score(c, 0)));
  }

  add(candidate: Candidate, verification: Verification): void {
    this.checked.set(candidate.imageId, verification);
    this.scores.set(candidate.imageId, this.score(candidate, verification.nInliers));
  }

  /** Whether the best verified image is beyond doubt against the rest as it stands. */
  isCertain(certain: number, minInliers: number): boolean {
    const scored = [...this.scores].sort(([i, a], [j, b]) => b - a || j - i), [best, score] = scored[0];
    const found = this.checked.get(best);
    if (found === undefined || found.nInliers < 3 * minInliers) return false;
    const landmark = this.lookUp(best)?.landmark ?? '';
    if (this.probability(score, 0, landmark) < certain) return false;
    const rival = scored.slice(1).find(([id]) => {
      const row = this.lookUp(id);
      return row !== null && row.landmark !== landmark;
    });
    return this.probability(score, rival?.[1] ?? 0, landmark) >= certain;
  }

  /** The candidates, best score first, until images of `nLandmarks` are among them. */
  results(nLandmarks: number): Match[] {
    const scored = [...this.candidates].sort((a, b) => this.scores.get(b.imageId)! - this.scores.get(a.imageId)! || a.imageId - b.imageId);
    const best = new Map<string, number>(), found: [Candidate, string, string][] = [], enough = Math.max(2, nLandmarks);
    for (const candidate of scored) {
      const row = this.lookUp(candidate.imageId);
      if (row === null) continue;
      found.push([candidate, row.name, row.landmark]);
      if (!best.has(row.landmark)) best.set(row.landmark, this.scores.get(candidate.imageId)!);
      if (best.size >= enough) break;
    }
    const [leader] = best.keys(), [first = 0, second = 0] = best.values();
    return found.map(([candidate, name, landmark]) => {
      const score = this.scores.get(candidate.imageId)!;
      return {
        imageId: candidate.imageId, name, landmark, score,
        probability: this.probability(score, landmark === leader ? second : first, landmark),
        nInliers: this.checked.get(candidate.imageId)?.nInliers ?? 0,
        similarity: candidate.similarity,
      };
    });
  }

  private score(candidate: Candidate, nInliers: number): number {
    return this.calibration.score(candidate.votes / Math.max(this.nFeatures, 1), candidate.similarity, nInliers);
  }

  private probability(score: number, rival: number, landmark: string): number {
    const {searched, ofLandmark} = this.counts;
    return this.calibration.probability(score, rival, this.strangers, searched, ofLandmark(landmark));
  }
}
