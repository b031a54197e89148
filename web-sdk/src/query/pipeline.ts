/** From features to an answer, as `delf_edge/query/pipeline.py`: candidates, checks in their order, ranking, judgement. */

import type {Bundle} from '../bundle/bundle.js';
import {OptionError} from '../errors.js';
import type {Features} from '../features/features.js';
import {type Candidate, SearchIndex} from '../index/search.js';
import type {Kernels} from '../kernels.js';
import {Quantizer} from '../quantization/codes.js';
import type {StoredImage} from '../storage/database.js';
import {type Timings, timed} from '../timing.js';
import type {IdentifyOptions, Match, Proof} from '../types.js';
import {estimateAffine, match, toleranceOf, type Verification} from '../verification.js';
import {CandidateRanking} from './ranking.js';

const TOP = 50; // candidates looked for

/** An answer without what the catalogue says. */
export interface Judged {
  readonly landmark: string | null;
  readonly image: string | null;
  readonly probability: number;
  readonly nInliers: number;
  readonly reason: string;
  readonly results: readonly Match[];
  readonly proof: Proof | null;
}

/** Options with their defaults, checked. */
export function queryOptions(options: IdentifyOptions): Required<Omit<IdentifyOptions, 'deadlineMs'>> & {deadlineMs: number | null} {
  const filled = {
    verify: options.verify ?? 20, certain: options.certain ?? 0.9, minInliers: options.minInliers ?? 6,
    without: options.without ?? [], turns: options.turns ?? true, top: options.top ?? 5, deadlineMs: options.deadlineMs ?? null,
    languages: options.languages ?? [], proof: options.proof ?? true,
  };
  for (const [name, least] of [['verify', 0], ['minInliers', 0], ['top', 1]] as const) {
    if (!Number.isInteger(filled[name]) || filled[name] < least) {
      throw new OptionError(`${name} is ${String(filled[name])}; it must be a whole number, at least ${least}`);
    }
  }
  if (!(filled.certain > 0 && filled.certain <= 1)) throw new OptionError(`certain is ${filled.certain}; it must be in (0, 1]`);
  if (filled.deadlineMs !== null && !(filled.deadlineMs >= 0)) {
    throw new OptionError(`deadlineMs is ${filled.deadlineMs}; it must not be negative`);
  }
  return filled;
}

export class QueryPipeline {
  readonly quantizer: Quantizer;
  readonly index: SearchIndex;
  private readonly images: ReadonlyMap<number, StoredImage>;
  private readonly photosOf = new Map<string, number>();

  constructor(private readonly kernels: Kernels, private readonly bundle: Bundle, images: readonly StoredImage[]) {
    this.quantizer = new Quantizer(kernels, bundle.codebook);
    this.index = new SearchIndex(kernels, this.quantizer, images.map(i => i.imageId), images.map(i => i.codes), bundle.cohort);
    this.images = new Map(images.map(image => [image.imageId, image]));
    for (const {landmark} of images) this.photosOf.set(landmark, (this.photosOf.get(landmark) ?? 0) + 1);
  }

  /**
   * What a photo's features say.
   *
   * @param began milliseconds of `performance.now()` that the deadline counts from.
   */
  answer(features: Features, options: IdentifyOptions, timings: Timings, began: number): Judged {
    const {verify, certain, minInliers, top, deadlineMs, proof} = queryOptions(options), {calibration} = this.bundle;
    const {candidates, strangers, hidden} = timed(timings, 'candidates', () => this.search(features, options));
    const ranking = new CandidateRanking(calibration, id => this.images.get(id) ?? null, features.n, candidates, strangers, {
      searched: this.images.size - hidden.size,
      ofLandmark: landmark => this.photosOf.get(landmark) ?? 0,
    });
    let cut = false;
    timed(timings, 'verify', () => {
      const shortlist = candidates.slice(0, verify), verifier = this.verifier(features);
      for (const [i, candidate] of shortlist.entries()) {
        ranking.add(candidate, verifier(candidate));
        if (i + 1 === shortlist.length) break;
        if (deadlineMs !== null && performance.now() - began > deadlineMs) {
          cut = true;
          break;
        }
        if ((i + 1) % 3 === 0 && ranking.isCertain(certain, minInliers)) break;
      }
    });
    const results = onePerLandmark(ranking.results(top)).slice(0, top).map(r => this.bounded(r, minInliers));
    const suffix = cut ? '; checking was cut short by the deadline' : '';
    if (!results.length) {
      const why = features.n ? 'the database has no image like it' : 'the photo has no features';
      return {landmark: null, image: null, probability: 0, nInliers: 0, reason: why + suffix, results: [], proof: null};
    }
    const [best] = results, [found, why] = this.judged(best, minInliers), verification = ranking.checked.get(best.imageId);
    return {
      landmark: found ? best.landmark : null,
      image: found ? best.name : null,
      probability: best.probability,
      nInliers: best.nInliers,
      reason: why + suffix,
      results,
      proof: proof && verification !== undefined ? this.proofOf(features, best.imageId, verification) : null,
    };
  }

  /** Score of the best candidate before anything is checked; -Infinity where there is none. */
  bestScore(features: Features, options: IdentifyOptions): number {
    return features.n ? (this.search(features, options).candidates[0]?.score ?? -Infinity) : -Infinity;
  }

  private search(features: Features, options: IdentifyOptions) {
    const {verify, without} = queryOptions(options);
    const hidden = new Set([...this.images.values()].filter(i => without.includes(i.landmark)).map(i => i.imageId));
    return {...this.index.search(features, this.bundle.calibration.balance, Math.max(TOP, verify, 1), hidden), hidden};
  }

  /** Checks candidates of one query, whose turned descriptors are put into the kernels' memory each time anew. */
  verifier(features: Features): (candidate: Candidate) => Verification {
    const {kernels, quantizer} = this, {D} = quantizer.codebook, turned = quantizer.turn(features.descriptors, features.n);
    return ({imageId}) => {
      const {codes} = this.images.get(imageId)!;
      const matches = kernels.during(() => {
        const query = kernels.put(turned), stored = kernels.room(4 * codes.n * D);
        quantizer.decode(codes, stored);
        return match(kernels, query, features.n, stored, codes.n, D);
      });
      const source = pointsOf(features.keypoints, matches, 0), target = pointsOf(codes.keypoints, matches, 1);
      return {matches, ...estimateAffine(kernels, source, target, toleranceOf(codes.width, codes.height))};
    };
  }

  private proofOf(features: Features, imageId: number, {matches, inliers, transform}: Verification): Proof {
    const {codes} = this.images.get(imageId)!, proven = matches.filter((_, i) => inliers[i >> 1]);
    return {
      imageId,
      querySize: [features.width, features.height],
      storedSize: [codes.width, codes.height],
      query: pointsOf(features.keypoints, proven, 0),
      stored: pointsOf(codes.keypoints, proven, 1),
      transform,
      turned: 0,
    };
  }

  /** Without `minInliers` points the probability is at most their share of the threshold: alike at a glance is no proof. */
  private bounded(result: Match, minInliers: number): Match {
    if (result.nInliers >= minInliers) return result;
    const most = (this.bundle.calibration.weights.threshold * result.nInliers) / minInliers;
    return {...result, probability: Math.max(0, Math.min(result.probability, most))};
  }

  private judged(best: Match, minInliers: number): [found: boolean, why: string] {
    const {threshold} = this.bundle.calibration.weights, points = `${best.nInliers} matched point${best.nInliers === 1 ? '' : 's'}`;
    if (best.nInliers < minInliers) return [false, `the best image, ${best.name}, has ${points}; ${minInliers} points are needed`];
    const evidence = `${points}, probability ${best.probability.toFixed(2)}`;
    if (best.probability >= threshold) return [true, `${evidence}, threshold ${threshold.toFixed(2)}`];
    return [false, `the best image, ${best.name}, has ${evidence}, below the threshold ${threshold.toFixed(2)}`];
  }
}

function pointsOf(keypoints: Float32Array, matches: Int32Array, side: 0 | 1): Float32Array {
  const points = new Float32Array(matches.length);
  for (let i = 0; i < matches.length; i += 2) {
    points[i] = keypoints[2 * matches[i + side]];
    points[i + 1] = keypoints[2 * matches[i + side] + 1];
  }
  return points;
}

function onePerLandmark(results: readonly Match[]): Match[] {
  const best = new Map<string, Match>();
  for (const result of results) if (!best.has(result.landmark)) best.set(result.landmark, result);
  return [...best.values()];
}
