/** Runs the networks of a bundle. The only door to LiteRT.js. */

import {type CompiledModel, Environment, getDefaultEnvironment, getGlobalLiteRt, loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

import {EngineError} from '../errors.js';
import {messageOf} from '../files/fetch.js';
import {plainWeights} from './plain_weights.js';
import {sizedModel} from './tflite.js';

const MOST_THREADS = 4;
const MOST_COMPILED = 8; // sizes of one network that are kept: two turns of four levels

/** An output of a network: (1, h, w, c), row by row. */
export interface NetworkMap {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly data: Float32Array;
}

export interface RuntimeOptions {
  /** URL of the folder of LiteRT's files, with the last slash. */
  readonly folder: string;
  readonly accelerator: 'wasm' | 'webgpu';
  readonly threads: boolean;
}

/** Facts about the runtime that was loaded. */
export interface Runtime {
  readonly accelerator: 'wasm' | 'webgpu';
  readonly threads: number;
}

let loading: Promise<number> | null = null;

/**
 * Loads LiteRT.js, once.
 *
 * @throws EngineError it cannot be loaded, or there is no WebGPU and it was asked for.
 */
export async function loadRuntime(options: RuntimeOptions): Promise<Runtime> {
  const {accelerator, folder} = options, graphics = accelerator === 'webgpu';
  if (graphics && !('gpu' in navigator)) throw noGraphics();
  loading ??= loadFrom(options);
  let threads: number;
  try {
    threads = await loading;
    if (graphics && getDefaultEnvironment().webGpuDevice === null) getGlobalLiteRt().setDefaultEnvironment(await Environment.create());
  } catch (e) {
    loading = null;
    throw new EngineError(`LiteRT.js cannot be loaded from ${folder}: ${messageOf(e)}; check the folder and the page's policy`);
  }
  if (graphics && getDefaultEnvironment().webGpuDevice === null) throw noGraphics();
  return {accelerator, threads};
}

function noGraphics(): EngineError {
  return new EngineError('there is no WebGPU in this browser; open with accelerator "wasm" or "auto"');
}

/** Loads the files that this browser can run; gives the number of threads. */
async function loadFrom({folder, threads, accelerator}: RuntimeOptions): Promise<number> {
  const load = async (threaded: boolean): Promise<void> => {
    // In a worker Emscripten would look for its files beside the worker's script, not beside its own.
    const script = `${folder}litert_wasm_threaded_internal.js`;
    Object.assign(globalThis, {Module: {locateFile: (name: string) => folder + name, ...(threaded && {mainScriptUrlOrBlob: script})}});
    const loaded = await loadLiteRt(folder, {threads: threaded}), device = getDefaultEnvironment().webGpuDevice;
    if (accelerator === 'webgpu' || device === null) return;
    // LiteRT.js takes the graphics chip at its fastest as soon as it is loaded; whoever does not use it gives it back.
    loaded.setDefaultEnvironment(await Environment.create({webGpuDevice: null}));
    device.destroy();
  };
  if (threads && globalThis.crossOriginIsolated === true && navigator.hardwareConcurrency > 1) {
    try {
      await load(true);
      return Math.min(MOST_THREADS, navigator.hardwareConcurrency);
    } catch {
      // The threaded files need relaxed SIMD, too; the others do not.
    }
  }
  await load(false);
  return 1;
}

/** One network. */
export class Network {
  private readonly compiled = new Map<string, Promise<CompiledModel>>(); // by size, the one used last at the end

  private readonly model: Uint8Array;

  /** @param model bytes of a .tflite file, their SHA-256 compared. */
  constructor(model: Uint8Array, private readonly runtime: Runtime) {
    this.model = plainWeights(model);
  }

  /**
   * Runs the network once.
   *
   * @param input (1, height, width, channels), normalised.
   * @throws EngineError the runtime refuses the network, or failed.
   */
  async run(input: Float32Array, height: number, width: number, channels: number): Promise<Map<string, NetworkMap>> {
    try {
      const model = await this.sized(height, width), tensor = new Tensor(input, [1, height, width, channels]);
      let results: Tensor[] = [];
      try {
        results = await model.run([tensor]);
        const found = new Map<string, NetworkMap>();
        for (const [i, {name}] of model.getOutputDetails().entries()) {
          const [, h, w, c] = results[i].type.layout.dimensions;
          found.set(name, {height: h, width: w, channels: c, data: (await results[i].data()) as Float32Array});
        }
        return found;
      } finally {
        tensor.delete();
        for (const result of results) result.delete();
      }
    } catch (e) {
      throw new EngineError(`LiteRT.js failed on input of ${width} x ${height} pixels: ${messageOf(e)}`);
    }
  }

  close(): void {
    for (const model of this.compiled.values()) void model.then(m => m.delete(), () => {});
    this.compiled.clear();
  }

  private async sized(height: number, width: number): Promise<CompiledModel> {
    const key = `${width}x${height}`;
    const model = this.compiled.get(key) ?? loadAndCompile(sizedModel(this.model, height, width), {
      accelerator: this.runtime.accelerator, cpuOptions: {numThreads: this.runtime.threads}, gpuOptions: {precision: 'fp32'},
    });
    this.compiled.delete(key);
    this.compiled.set(key, model);
    const [oldest] = this.compiled.keys();
    if (this.compiled.size > MOST_COMPILED) {
      void this.compiled.get(oldest)!.then(m => m.delete(), () => {});
      this.compiled.delete(oldest);
    }
    return model;
  }
}
