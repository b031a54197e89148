/** From evidence to a score and a probability, as `delf_edge/bundle/calibration.py`; its head has the formulas. */

import {BundleError} from '../errors.js';

const OTHER_VOTES = 0.01, OTHER_COSINE = 0.25; // what strangers reach, where a bundle has no cohort
const FEW = 300; // photos: beyond them more take no further chance away
const DEFAULTS = {
  votes: 4, similarity: 1, inliers: 1, floor: 8, bias: -4, slope: 2.5, margin_slope: 1.5, threshold: 0.5, expansion: 0,
  alpha: 3, support: 0, cohort_slope: 0, landmark: 0, size_slope: 0, photos_slope: 0,
};
type Weights = Readonly<typeof DEFAULTS>;

export class Calibration {
  private constructor(readonly weights: Weights) {}

  /**
   * From the `calibration` object of a manifest; what it leaves out has its default.
   *
   * @throws BundleError an unknown name, or a value that is no finite number.
   */
  static from(values: Readonly<Record<string, unknown>>): Calibration {
    for (const [name, value] of Object.entries(values)) {
      if (!Object.hasOwn(DEFAULTS, name)) {
        throw new BundleError(`calibration has "${name}"; this SDK knows ${Object.keys(DEFAULTS).join(', ')}; update delf-edge`);
      }
      if (typeof value !== 'number' || !Number.isFinite(value)) {
        throw new BundleError(`calibration ${name} is ${JSON.stringify(value)}; expected a finite number`);
      }
    }
    return new Calibration({...DEFAULTS, ...(values as Partial<Weights>)});
  }

  /** Weight of the cosine beside the square root of the votes, as the candidate stage fuses them. */
  get balance(): number {
    return this.weights.votes > 0 ? this.weights.similarity / this.weights.votes : 0.25;
  }

  /** Score of one stored image; higher is better. */
  score(votesPerFeature: number, similarity: number, nInliers: number): number {
    const w = this.weights, found = Math.max(0, Math.log((1 + nInliers) / (1 + w.floor)));
    return w.votes * Math.sqrt(Math.max(0, votesPerFeature)) + w.similarity * similarity + w.inliers * found;
  }

  /** What strangers reach, from the scores of a cohort's photos: the second best; of none, a constant. */
  strangers(scores: readonly number[]): number {
    if (!scores.length) return this.score(OTHER_VOTES, OTHER_COSINE, 0);
    return [...scores].sort((a, b) => b - a)[Math.min(1, scores.length - 1)];
  }

  /**
   * Probability of an image with this score, where the best of another landmark has `rival` (0: there is none).
   *
   * @param searched photos that were searched.
   * @param ofLandmark those of them that show the image's landmark.
   */
  probability(score: number, rival: number, strangers: number, searched: number, ofLandmark: number): number {
    const w = this.weights, margin = score - Math.max(rival, strangers);
    const chances = w.size_slope * Math.log(Math.min(Math.max(1, searched), FEW)) + w.photos_slope * Math.log(Math.max(1, ofLandmark));
    const x = w.bias + w.slope * score + w.margin_slope * margin - w.cohort_slope * strangers - chances;
    return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
  }
}
