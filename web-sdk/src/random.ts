/**
 * The generator of `numpy.random.default_rng(seed)`: SeedSequence and PCG64 (XSL-RR), bit for bit. RANSAC draws the same
 * samples here as in Python.
 *
 * Source: O'Neill, PCG (2014), and numpy/random/bit_generator.pyx.
 */

const MASK = (1n << 128n) - 1n, MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** The first 2 n words of 32 bits that SeedSequence(seed) generates, as n of 64 bits; the seed is below 2^32. */
function seedWords(seed: number, n: number): bigint[] {
  const pool = new Uint32Array(4), mixed = new Uint32Array(2 * n);
  let hash = 0x43b0d7e5;
  const hashed = (value: number): number => {
    value = (value ^ hash) >>> 0;
    hash = Math.imul(hash, 0x931e8875) >>> 0;
    value = Math.imul(value, hash) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  for (let i = 0; i < 4; i++) pool[i] = hashed(i === 0 ? seed >>> 0 : 0);
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) {
      if (from === to) continue;
      const value = (Math.imul(0xca01f9dd, pool[to]) - Math.imul(0x4973f715, hashed(pool[from]))) >>> 0;
      pool[to] = (value ^ (value >>> 16)) >>> 0;
    }
  }
  hash = 0x8b51f9dd;
  for (let i = 0; i < 2 * n; i++) {
    let value = (pool[i % 4] ^ hash) >>> 0;
    hash = Math.imul(hash, 0x58f38ded) >>> 0;
    value = Math.imul(value, hash) >>> 0;
    mixed[i] = (value ^ (value >>> 16)) >>> 0;
  }
  return Array.from({length: n}, (_, i) => BigInt(mixed[2 * i]) | (BigInt(mixed[2 * i + 1]) << 32n));
}

/** `numpy.random.default_rng(seed).random(count)`, float64 in [0, 1). */
export function uniform(count: number, seed: number): Float64Array {
  const [high, low, incHigh, incLow] = seedWords(seed, 4);
  const increment = ((((incHigh << 64n) | incLow) << 1n) | 1n) & MASK, out = new Float64Array(count);
  let state = (((increment + ((high << 64n) | low)) & MASK) * MULTIPLIER + increment) & MASK;
  for (let i = 0; i < count; i++) {
    state = (state * MULTIPLIER + increment) & MASK;
    const word = ((state >> 64n) ^ state) & 0xffffffffffffffffn, turn = state >> 122n;
    const turned = ((word >> turn) | (word << ((64n - turn) & 63n))) & 0xffffffffffffffffn;
    out[i] = Number(turned >> 11n) / 2 ** 53;
  }
  return out;
}
