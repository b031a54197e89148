/** A photo's features, by the networks of a bundle; as `Extractor` in `delf_edge/features/extractor.py`. */

import type {Bundle} from '../bundle/bundle.js';
import {BundleError} from '../errors.js';
import type {Picture} from '../images/resize.js';
import type {Kernels} from '../kernels.js';
import {type Timings, timed, timedAsync} from '../timing.js';
import {contrast, type Features, globalLevel, type LevelMap, noFeatures, poolGlobal, projectDescriptors, select} from './features.js';
import {Network, type NetworkMap, type Runtime} from './network.js';
import type {ExtractOptions} from './options.js';
import {buildPyramid, type Level, workingSize} from './pyramid.js';

export class Extractor {
  private readonly local: Network;
  private readonly tail: Network | null;

  constructor(private readonly kernels: Kernels, private readonly bundle: Bundle, runtime: Runtime) {
    this.local = new Network(bundle.network, runtime);
    this.tail = bundle.tail === null ? null : new Network(bundle.tail, runtime);
  }

  /** @throws EngineError the runtime failed; BundleError: an output is not what the manifest says. */
  async extract(image: Picture, options: ExtractOptions, timings: Timings = {}): Promise<Features> {
    const {kernels, bundle: {manifest, codebook}} = this;
    const levels = timed(timings, 'pyramid', () => buildPyramid(image, options.scales, options.baseSize, options.maxUpscale));
    if (!levels.length || contrast(levels[levels.length - 1]) < options.minContrast) return noFeatures(codebook, image);
    const maps: LevelMap[] = [];
    for (const level of levels) maps.push(await timedAsync(timings, 'network', () => this.run(level)));
    const selection = timed(timings, 'selection', () => select(maps, image.width, image.height, manifest, options));
    const descriptors = timed(timings, 'projection', () => projectDescriptors(kernels, codebook, selection.raw, selection.n));
    const global = await timedAsync(timings, 'global', async () => {
      const target = workingSize(image, options.baseSize, options.maxUpscale) * manifest.levelScale;
      return poolGlobal(kernels, codebook, await this.globalMap(maps[globalLevel(levels, target)]), manifest.gemP);
    });
    return {n: selection.n, keypoints: selection.keypoints, scores: selection.scores, descriptors, global, width: image.width, height: image.height};
  }

  close(): void {
    this.local.close();
    this.tail?.close();
  }

  private async run(level: Level): Promise<LevelMap> {
    const {network: {mean, scale, stride, channels}, selection} = this.bundle.manifest, {data, width, height} = level;
    const input = new Float32Array(data.length), factor = Math.fround(1 / scale), less = Math.fround(mean);
    for (let i = 0; i < data.length; i++) input[i] = (data[i] - less) * factor;
    const outputs = await this.local.run(input, height, width, 3);
    const cells = outputOf(outputs, 'features', 'local network');
    const h = Math.ceil(height / stride), w = Math.ceil(width / stride);
    if (cells.height !== h || cells.width !== w || cells.channels !== channels) {
      throw new BundleError(
        `the network gave a map of ${cells.height} x ${cells.width} x ${cells.channels} for a level of ${height} x ${width} pixels; ` +
          `by its manifest (stride ${stride}) it is ${h} x ${w} x ${channels}; export and pack it again`,
      );
    }
    const attention = selection === 'attention' ? outputOf(outputs, 'attention', 'local network').data : null;
    return {width: w, height: h, cells: cells.data, attention, scaleX: level.scaleX, scaleY: level.scaleY};
  }

  private async globalMap(map: LevelMap): Promise<Float32Array> {
    if (this.tail === null) return map.cells;
    const {channels} = this.bundle.manifest.network, expected = this.bundle.codebook.Cg;
    const found = outputOf(await this.tail.run(map.cells, map.height, map.width, channels), 'global_map', 'tail');
    if (found.channels !== expected) {
      throw new BundleError(`the tail gives ${found.channels} channels, the manifest says ${expected}; pack it again`);
    }
    return found.data;
  }
}

function outputOf(outputs: ReadonlyMap<string, NetworkMap>, name: string, what: string): NetworkMap {
  const found = outputs.get(name);
  if (found === undefined) {
    throw new BundleError(`the ${what} has outputs ${[...outputs.keys()].join(', ')}, but not ${name}; export it again`);
  }
  return found;
}
