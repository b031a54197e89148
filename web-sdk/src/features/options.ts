/** How features are extracted: the options of a preset, as `ExtractOptions` and `extract_options` in Python. */

import type {Manifest} from '../bundle/manifest.js';
import {BundleError, OptionError} from '../errors.js';

export interface ExtractOptions {
  readonly scales: readonly number[];
  readonly maxFeatures: number;
  readonly scoreThreshold: number;
  readonly nmsRadius: number;
  readonly baseSize: number;
  readonly maxUpscale: number;
  readonly minContrast: number;
}

const DEFAULTS: ExtractOptions = {
  scales: [0.354, 0.5, 0.707], maxFeatures: 300, scoreThreshold: 0, nmsRadius: 0, baseSize: 640, maxUpscale: 2, minContrast: 3,
};
const NAMES: Readonly<Record<string, keyof ExtractOptions>> = {
  scales: 'scales', max_features: 'maxFeatures', score_threshold: 'scoreThreshold', nms_radius: 'nmsRadius',
  base_size: 'baseSize', max_upscale: 'maxUpscale', min_contrast: 'minContrast',
};
const RANGES: readonly [keyof ExtractOptions, number, number][] = [
  ['maxFeatures', 1, 65535], ['nmsRadius', 0, 16], ['baseSize', 64, 8192], ['maxUpscale', 1, 16], ['minContrast', 0, 255],
];

/**
 * The options of a bundle's preset, of its default one if none is named.
 *
 * @throws OptionError no such preset, or a value outside its range; BundleError: an option that this SDK does not know.
 */
export function presetOptions(manifest: Manifest, preset?: string): ExtractOptions {
  const name = preset ?? manifest.defaultPreset, stored = manifest.presets.get(name);
  if (stored === undefined) {
    throw new OptionError(`bundle "${manifest.name}" has no preset "${name}"; it has ${[...manifest.presets.keys()].sort().join(', ')}`);
  }
  const unknown = Object.keys(stored).filter(key => !Object.hasOwn(NAMES, key)).sort();
  if (unknown.length) {
    throw new BundleError(`preset "${name}" sets ${unknown.join(', ')}, unknown to this SDK; upgrade delf-edge`);
  }
  const options = {...DEFAULTS, ...Object.fromEntries(Object.entries(stored).map(([key, value]) => [NAMES[key], value]))} as ExtractOptions;
  const {scales} = options;
  if (!Array.isArray(scales) || scales.length < 1 || scales.length > 16 || !scales.every(s => s >= 0.01 && s <= 8)) {
    throw new OptionError(`scales are ${JSON.stringify(scales)}; give 1 to 16 numbers between 0.01 and 8`);
  }
  for (const [key, low, high] of RANGES) {
    const value = options[key] as number;
    if (!(value >= low && value <= high)) throw new OptionError(`${key} is ${value}; it must be from ${low} to ${high}`);
  }
  return options;
}
