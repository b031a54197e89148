/** Every stage gives what Python gives, from the same pixels and the same maps of the networks. */

import assert from 'node:assert/strict';
import {before, test} from 'node:test';

import {Calibration} from '../src/bundle/calibration.js';
import {measure} from '../src/camera/frame_gate.js';
import {Voter} from '../src/camera/temporal_voting.js';
import {type Features, globalLevel, type LevelMap, poolGlobal, projectDescriptors, select} from '../src/features/features.js';
import {presetOptions} from '../src/features/options.js';
import {buildPyramid, workingSize} from '../src/features/pyramid.js';
import {crc32} from '../src/files/crc32.js';
import {type Picture, resize} from '../src/images/resize.js';
import {QueryPipeline} from '../src/query/pipeline.js';
import {uniform} from '../src/random.js';
import {apart, arrays, facts, floats, type Opened, openAll} from './vectors.js';

let all: Opened, pipeline: QueryPipeline;

before(async () => {
  all = await openAll();
  pipeline = new QueryPipeline(all.kernels, all.bundle, all.images);
});

async function picture(name: string): Promise<Picture> {
  const {shape: [height, width], data} = (await arrays).get(name)!;
  return {width, height, data: data as Uint8Array};
}

/** Features as they follow from the maps of the networks that the vectors hold. */
async function featuresOf(name: string): Promise<Features & {options: ReturnType<typeof presetOptions>}> {
  const {bundle: {manifest, codebook}, kernels} = all, image = await picture(`${name}/pixels`), options = presetOptions(manifest);
  const levels = buildPyramid(image, options.scales, options.baseSize, options.maxUpscale), maps: LevelMap[] = [];
  for (const level of levels) {
    const key = `maps/${name}/${level.height}x${level.width}x3`, {shape: [, height, width]} = (await arrays).get(`${key}/features`)!;
    maps.push({
      width, height, cells: await floats(`${key}/features`), attention: await floats(`${key}/attention`),
      scaleX: level.scaleX, scaleY: level.scaleY,
    });
  }
  const chosen = select(maps, image.width, image.height, manifest, options);
  const {width, height} = maps[globalLevel(levels, workingSize(image, options.baseSize, options.maxUpscale) * manifest.levelScale)];
  const map = await floats(`maps/${name}/${height}x${width}x${codebook.C}/global_map`);
  return {
    n: chosen.n, keypoints: chosen.keypoints, scores: chosen.scores,
    descriptors: projectDescriptors(kernels, codebook, chosen.raw, chosen.n),
    global: poolGlobal(kernels, codebook, map, manifest.gemP), width: image.width, height: image.height, options,
  };
}

test('the generator draws the numbers of NumPy, bit for bit', async () => {
  const own = uniform(3000, 0), wanted = (await arrays).get('draws')!.data as Float64Array;
  assert.deepEqual(own.filter((_, i) => Math.floor(i / 3) % 50 === 0), wanted);
});

test('resized pictures have the pixels of OpenCV', async () => {
  for (const [i, way] of facts.resize.entries()) {
    const out = await picture(`resize/${i}/out`);
    assert.deepEqual(resize(await picture(`resize/${i}/in`), out.width, out.height, way).data, out.data, `case ${i}`);
  }
});

for (const [name, wanted] of Object.entries(facts.queries)) {
  test(`${name}: pixels to levels`, async () => {
    const options = presetOptions(all.bundle.manifest);
    const levels = buildPyramid(await picture(`${name}/pixels`), options.scales, options.baseSize, options.maxUpscale);
    assert.deepEqual(levels.map(l => ({size: [l.width, l.height], crc32: crc32(l.data)})), wanted.levels);
  });

  test(`${name}: measures of a frame`, async () => {
    const {brightness, brightShare, contrast, sharpness, small} = measure(await picture(`${name}/pixels`));
    assert.ok(apart([brightness, brightShare, contrast, sharpness], wanted.frame) < 1e-9);
    assert.deepEqual(Float32Array.from(small.data), await floats(`${name}/small`));
  });

  test(`${name}: maps to features`, async () => {
    const {keypoints, scores, descriptors, global} = await featuresOf(name);
    assert.ok(apart(keypoints, await floats(`${name}/keypoints`)) < 1e-4, 'keypoints');
    assert.ok(apart(scores, await floats(`${name}/scores`)) < 1e-5, 'scores');
    assert.ok(apart(descriptors, await floats(`${name}/descriptors`)) < 1e-5, 'descriptors');
    assert.ok(apart(global, await floats(`${name}/global`)) < 1e-5, 'global descriptor');
  });

  test(`${name}: features to words`, async () => {
    const {descriptors, n} = await featuresOf(name), {words, similarity} = pipeline.quantizer.assign(descriptors, n, 8);
    const expected = (await arrays).get(`${name}/words`)!.data as Int32Array;
    const other = words.filter((word, i) => word !== expected[i]).length; // words that are equally near may swap
    assert.ok(other <= 0.005 * words.length, `${other} of ${words.length} words differ`);
    assert.ok(apart(similarity, await floats(`${name}/word_similarity`)) < 0.02);
  });

  test(`${name}: words to candidates`, async () => {
    const {candidates, strangers} = pipeline.index.search(await featuresOf(name), all.bundle.calibration.balance, 50);
    for (const [found, expected] of [[candidates, wanted.candidates], [strangers, wanted.strangers]] as const) {
      const byId = new Map(found.map(c => [c.imageId, c]));
      assert.equal(found.length, expected.length);
      assert.equal(found[0].imageId, expected[0][0]);
      for (const [id, score, votes, similarity] of expected) {
        const own = byId.get(id);
        if (own === undefined) continue; // at the end of the list equal ones may swap
        const distance = apart([own.score, own.votes, own.similarity], [score, votes, similarity]);
        assert.ok(distance < 1e-3, `image ${id}: ${[own.score, own.votes, own.similarity].join(' ')}, Python has ${[score, votes, similarity].join(' ')}`);
      }
      assert.ok(expected.filter(([id]) => !byId.has(id)).length <= 1);
    }
  });

  test(`${name}: candidates to inliers`, async () => {
    const verify = pipeline.verifier(await featuresOf(name)), transforms = await floats(`${name}/transforms`);
    for (const [i, matches] of wanted.matches.entries()) {
      const [imageId, score, votes, similarity] = wanted.candidates[i], found = verify({imageId, score, votes, similarity});
      assert.equal(found.matches.length / 2, matches, `matches of candidate ${i}`);
      assert.equal(found.nInliers, wanted.inliers[i], `inliers of candidate ${i}`);
      assert.ok(apart(Float32Array.from(found.transform), transforms.subarray(6 * i, 6 * i + 6)) < 1e-2, `map of candidate ${i}`);
    }
  });

  test(`${name}: the answer`, async () => {
    const answer = pipeline.answer(await featuresOf(name), {}, {}, performance.now()), {answer: expected} = wanted;
    assert.equal(answer.landmark, expected.landmark);
    assert.equal(answer.image, expected.image);
    assert.equal(answer.nInliers, expected.nInliers);
    assert.equal(answer.reason, expected.reason);
    assert.ok(Math.abs(answer.probability - expected.probability) < 1e-3);
    assert.deepEqual(answer.results.map(m => [m.landmark, m.nInliers]), expected.results.map(([landmark, , , n]) => [landmark, n]));
    assert.equal(answer.proof?.query.length, 2 * answer.nInliers);
  });
}

test('what a landmark is not, is no candidate', async () => {
  const features = await featuresOf('brandenburgGate');
  const answer = pipeline.answer(features, {without: ['Brandenburg Gate']}, {}, performance.now());
  assert.ok(answer.results.length > 0 && answer.results.every(m => m.landmark !== 'Brandenburg Gate'));
});

test('the number of photos counts up to 300', () => {
  const weights = Calibration.from({size_slope: 0.5});
  const [one, few, many, more] = [1, 4, 300, 10_000].map(searched => weights.probability(2, 0, 0.2, searched, 1));
  assert.ok(one > few && few > many);
  assert.equal(many, more);
});

test('frames become events as in Python', () => {
  const voter = new Voter();
  for (const line of facts.story) {
    const decisions = voter.observe(new Map(Object.entries(line.named)), line.now);
    assert.deepEqual(decisions.map(d => [d.change, d.landmark, d.previous]), line.decisions, `at ${line.now} s`);
    assert.equal(voter.state, line.state);
    assert.deepEqual(voter.present, line.present);
  }
});
