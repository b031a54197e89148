/**
 * Which stored images may show the query's place: lists of words, asymmetric distances, votes; as
 * `delf_edge/index/search.py` and `scoring.py`, whose heads have the formulas. The cohort of the bundle votes along.
 */

import type {Cohort} from '../bundle/codebook.js';
import {OptionError} from '../errors.js';
import type {Features} from '../features/features.js';
import type {Kernels} from '../kernels.js';
import {type Codes, type Quantizer, unitGlobal} from '../quantization/codes.js';

const K_NEIGHBOURS = 50, MIN_SIMILARITY = 0.3, POWER = 1.5, REFERENCE = 0.6, LOOKED_AT = 1200, LEAST_PROBES = 8, MOST_PROBES = 32;

/** An image that may be the one; an image of the cohort has its number there as id. */
export interface Candidate {
  readonly imageId: number;
  readonly score: number;
  readonly votes: number;
  readonly similarity: number;
}

/** Hits of query features: which query, which feature of the lists, its score or the weight of its vote. */
export interface Hits {
  readonly query: Int32Array;
  readonly feature: Int32Array;
  readonly score: Float32Array;
}

interface Stored {
  readonly words: Uint16Array;
  readonly codes: Uint8Array;
  readonly global: Int8Array;
}

/** Inverted lists over the images of a database and the photos of a cohort behind them. */
export class SearchIndex {
  readonly nFeatures: number;
  private readonly nSlots: number;
  private readonly slotOf: Int32Array;
  private readonly lists: number;
  private readonly starts: number;
  private readonly globals: Float32Array;

  /**
   * @param images ascending by id.
   */
  constructor(
    private readonly kernels: Kernels,
    private readonly quantizer: Quantizer,
    private readonly imageIds: readonly number[],
    images: readonly Codes[],
    cohort: Cohort | null,
  ) {
    const {K, M, G} = quantizer.codebook, stored: Stored[] = [...images, ...cohortPhotos(cohort, M, G)];
    this.nSlots = stored.length;
    this.nFeatures = stored.reduce((n, s) => n + s.words.length, 0);
    const starts = new Uint32Array(K + 1), slots = new Int32Array(this.nFeatures), codes = new Uint8Array(this.nFeatures * M);
    for (const {words} of stored) for (const w of words) starts[w + 1]++;
    for (let w = 0; w < K; w++) starts[w + 1] += starts[w];
    const next = starts.slice(0, K);
    stored.forEach((image, slot) => {
      for (let i = 0; i < image.words.length; i++) {
        const at = next[image.words[i]]++;
        slots[at] = slot;
        codes.set(image.codes.subarray(i * M, (i + 1) * M), at * M);
      }
    });
    this.slotOf = slots;
    this.lists = kernels.put(codes);
    this.starts = kernels.put(starts);
    this.globals = new Float32Array(stored.length * G);
    stored.forEach((image, slot) => this.globals.set(unitGlobal(image.global), slot * G));
  }

  /** Words looked up per query feature: as many as hold about 1,200 stored features, from 8 to 32. */
  get probes(): number {
    const wanted = Math.floor((LOOKED_AT * this.quantizer.codebook.K) / Math.max(this.nFeatures, 1));
    return Math.min(Math.max(wanted, LEAST_PROBES), MOST_PROBES, this.quantizer.codebook.K);
  }

  /**
   * Candidates and strangers of the cohort, the best first, at most `top` of each.
   *
   * @param balance weight of the cosine beside the square root of the votes per query feature.
   * @param hidden ids of images that this query does not see.
   */
  search(features: Features, balance: number, top: number, hidden: ReadonlySet<number> = new Set()): {candidates: Candidate[]; strangers: Candidate[]} {
    const {D} = this.quantizer.codebook, n = this.imageIds.length;
    if (features.descriptors.length !== features.n * D) {
      throw new OptionError(`${features.descriptors.length} values for ${features.n} descriptors; the codebook has dimension ${D}`);
    }
    const alive = Array.from({length: this.nSlots}, (_, slot) => slot >= n || !hidden.has(this.imageIds[slot]));
    const votes = features.n && this.nFeatures ? this.votes(features, alive) : new Float64Array(this.nSlots);
    const ids = Array.from({length: this.nSlots}, (_, slot) => (slot < n ? this.imageIds[slot] : slot - n));
    const ranked = (from: number, to: number) => this.best(features, balance, top, votes, alive, ids, from, to);
    return {candidates: ranked(0, n), strangers: ranked(n, this.nSlots)};
  }

  /** Votes of every slot. */
  votes(features: Features, alive: readonly boolean[]): Float64Array {
    const hits = this.neighbours(features, alive);
    return this.count(weigh(hits, features.scores));
  }

  /** Of every query feature the K nearest stored features above the least similarity, those equal to the K-th too. */
  neighbours(features: Features, alive: readonly boolean[]): Hits {
    const {kernels, quantizer} = this, {D, M} = quantizer.codebook, P = this.probes, all = alive.every(Boolean);
    const {words, similarity} = quantizer.assign(features.descriptors, features.n, P);
    const turned = quantizer.turn(features.descriptors, features.n), least = Math.fround(MIN_SIMILARITY);
    return kernels.during(() => {
      const query: number[] = [], feature: number[] = [], score: number[] = [];
      const wordsAt = kernels.put(words), baseAt = kernels.put(similarity), turnedAt = kernels.put(turned);
      const most = 4 * (this.nFeatures + 1), table = kernels.room(4 * M * 256);
      const scores = kernels.room(most), found = kernels.room(most), copy = kernels.room(most);
      for (let q = 0; q < features.n; q++) {
        kernels.loops.table(turnedAt + 4 * q * D, quantizer.pq, M, D / M, table);
        const count = kernels.loops.scan(
          this.lists, this.starts, wordsAt + 4 * q * P, baseAt + 4 * q * P, P, table, M, least, scores, found,
        );
        const s = kernels.floats(scores, count), f = kernels.ints(found, count);
        let n = count;
        if (!all) {
          n = 0;
          for (let i = 0; i < count; i++) if (alive[this.slotOf[f[i]]]) [s[n], f[n++]] = [s[i], f[i]];
        }
        const limit = n <= K_NEIGHBOURS ? -Infinity : kernels.loops.kthLargest(scores, n, K_NEIGHBOURS, copy);
        for (let i = 0; i < n; i++) {
          if (s[i] < limit) continue;
          query.push(q);
          feature.push(f[i]);
          score.push(s[i]);
        }
      }
      return {query: Int32Array.from(query), feature: Int32Array.from(feature), score: Float32Array.from(score)};
    });
  }

  /** Votes by slot: of each (query, image) the best hit, shared among the queries that vote for the same feature. */
  private count({query, feature, score}: Hits): Float64Array {
    const best = new Int32Array(this.nSlots).fill(-1), chosen: number[] = [], times = new Map<number, number>();
    for (let i = 0; i < query.length;) { // hits come query by query
      const slots: number[] = [];
      for (const q = query[i]; i < query.length && query[i] === q; i++) {
        const slot = this.slotOf[feature[i]], before = best[slot];
        if (before < 0) slots.push(slot);
        if (before < 0 || score[i] > score[before] || (score[i] === score[before] && feature[i] < feature[before])) best[slot] = i;
      }
      for (const slot of slots) {
        chosen.push(best[slot]);
        times.set(feature[best[slot]], (times.get(feature[best[slot]]) ?? 0) + 1);
        best[slot] = -1;
      }
    }
    const votes = new Float64Array(this.nSlots);
    for (const i of chosen) votes[this.slotOf[feature[i]]] += score[i] / Math.sqrt(times.get(feature[i])!);
    return votes;
  }

  private best(
    features: Features, balance: number, top: number, votes: Float64Array, alive: readonly boolean[], ids: readonly number[],
    from: number, to: number,
  ): Candidate[] {
    const {G} = this.quantizer.codebook, found: Candidate[] = [], asked = unit(features.global);
    for (let slot = from; slot < to; slot++) {
      let similarity = 0;
      for (let g = 0, at = slot * G; g < G; g++) similarity += this.globals[at + g] * asked[g];
      similarity = Math.fround(similarity);
      if (!alive[slot] || !(votes[slot] > 0 || similarity > 0)) continue;
      const score = Math.sqrt(votes[slot] / Math.max(features.n, 1)) + balance * similarity;
      found.push({imageId: ids[slot], score, votes: votes[slot], similarity});
    }
    return found.sort((a, b) => b.score - a.score || a.imageId - b.imageId).slice(0, top);
  }
}

/** Hits with the weight of the vote, a(q) max(0, s - r(q)) ** power, in place of the score; what weighs nothing goes. */
export function weigh(hits: Hits, attention: Float32Array): Hits {
  const N = attention.length, least = new Float32Array(N).fill(Infinity), many = new Int32Array(N), zero = new Float64Array(N).fill(MIN_SIMILARITY);
  hits.query.forEach((q, i) => {
    least[q] = Math.min(least[q], hits.score[i]);
    many[q]++;
  });
  for (let q = 0; q < N; q++) if (many[q] >= K_NEIGHBOURS) zero[q] += REFERENCE * (least[q] - MIN_SIMILARITY);
  const positive = Array.from(attention, a => Math.max(a, 0)), mean = positive.reduce((a, b) => a + b, 0) / Math.max(N, 1);
  const share = positive.map(a => (mean > 0 && Number.isFinite(mean) ? a / mean : 1));
  const keep = Array.from(hits.query, (_, i) => i).filter(i => hits.score[i] - zero[hits.query[i]] > 0);
  return {
    query: Int32Array.from(keep, i => hits.query[i]),
    feature: Int32Array.from(keep, i => hits.feature[i]),
    score: Float32Array.from(keep, i => share[hits.query[i]] * (hits.score[i] - zero[hits.query[i]]) ** POWER),
  };
}

function unit(v: Float32Array): Float32Array {
  let sum = 0;
  for (const x of v) sum += x * x;
  const norm = Math.max(Math.sqrt(sum), 1e-12);
  return v.map(x => x / norm);
}

function cohortPhotos(cohort: Cohort | null, M: number, G: number): Stored[] {
  if (cohort === null) return [];
  let from = 0;
  return Array.from(cohort.counts, (n, i) => {
    const own = {
      words: cohort.words.subarray(from, from + n),
      codes: cohort.codes.subarray(from * M, (from + n) * M),
      global: cohort.globalCodes.subarray(i * G, (i + 1) * G),
    };
    from += n;
    return own;
  });
}
