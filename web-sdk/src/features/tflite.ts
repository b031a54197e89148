/**
 * A copy of a TFLite model for inputs of one size. Our networks take any height and width, LiteRT.js runs fixed ones; the
 * sizes of inputs and outputs stand in the file, a FlatBuffer (tensorflow/lite/schema/schema.fbs), as numbers that can be
 * overwritten in place. The runtime works out the sizes in between by itself.
 */

import {EngineError} from '../errors.js';

/**
 * A model for inputs (1, height, width, C) whose outputs are (1, ceil(height / stride), ceil(width / stride), ...).
 *
 * @throws EngineError the bytes are no TFLite model.
 */
export function sizedModel(model: Uint8Array, height: number, width: number, stride: number): Uint8Array {
  if (new TextDecoder('latin1').decode(model.subarray(4, 8)) !== 'TFL3') {
    throw new EngineError(`not a TFLite model (${model.length} bytes, no TFL3 mark); export it again`);
  }
  const bytes = model.slice(), view = new DataView(bytes.buffer);
  const follow = (at: number) => at + view.getUint32(at, true);
  const field = (table: number, i: number): number => { // where the i-th field of a table lies, 0 if it is left out
    const layout = table - view.getInt32(table, true), at = 4 + 2 * i;
    const offset = at < view.getUint16(layout, true) ? view.getUint16(layout + at, true) : 0;
    return offset && table + offset;
  };
  const vector = (table: number, i: number) => follow(field(table, i));
  const graph = follow(vector(follow(0), 2) + 4), tensors = vector(graph, 0);
  for (const [ends, step] of [[1, 1], [2, stride]]) { // inputs, then outputs
    const list = vector(graph, ends);
    for (let i = 0; i < view.getUint32(list, true); i++) {
      const tensor = follow(tensors + 4 + 4 * view.getInt32(list + 4 + 4 * i, true));
      for (const shape of [0, 7].filter(k => field(tensor, k)).map(k => vector(tensor, k))) { // shape, shape_signature
        if (view.getUint32(shape, true) !== 4) continue;
        view.setInt32(shape + 8, Math.ceil(height / step), true);
        view.setInt32(shape + 12, Math.ceil(width / step), true);
      }
    }
  }
  return bytes;
}
