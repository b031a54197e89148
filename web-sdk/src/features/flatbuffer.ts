/** Reads what we need of a TFLite file, a FlatBuffer of the schema tensorflow/lite/schema/schema.fbs. */

import {EngineError} from '../errors.js';

/** Reads a FlatBuffer. The number of a field is its place in the table of the schema. */
export class Reader {
  readonly view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  follow(at: number): number {
    return at + this.view.getUint32(at, true);
  }

  /** Where the i-th field of a table lies, 0 if it is left out. */
  field(table: number, i: number): number {
    const layout = table - this.view.getInt32(table, true), at = 4 + 2 * i;
    const offset = at < this.view.getUint16(layout, true) ? this.view.getUint16(layout + at, true) : 0;
    return offset && table + offset;
  }

  int(table: number, i: number, missing: number, read: 'getInt32' | 'getUint32' = 'getInt32'): number {
    const at = this.field(table, i);
    return at ? this.view[read](at, true) : missing;
  }

  byte(table: number, i: number): number {
    const at = this.field(table, i);
    return at ? this.view.getInt8(at) : 0;
  }

  ints(table: number, i: number): number[] {
    const at = this.field(table, i);
    if (!at) return [];
    const vector = this.follow(at);
    return Array.from({length: this.view.getUint32(vector, true)}, (_, k) => this.view.getInt32(vector + 4 + 4 * k, true));
  }

  tables(table: number, i: number): number[] {
    const at = this.field(table, i);
    if (!at) return [];
    const vector = this.follow(at);
    return Array.from({length: this.view.getUint32(vector, true)}, (_, k) => this.follow(vector + 4 + 4 * k));
  }
}

/** @throws EngineError the bytes are no TFLite model. */
export function readModel(model: Uint8Array): Reader {
  if (new TextDecoder('latin1').decode(model.subarray(4, 8)) !== 'TFL3') {
    throw new EngineError(`not a TFLite model (${model.length} bytes, no TFL3 mark); export it again`);
  }
  return new Reader(model);
}

/** The kind of each operator code: an old file has it in the first field, a newer one in the fourth. */
export function operatorKinds(reader: Reader, root: number): number[] {
  return reader.tables(root, 1).map(code => Math.max(reader.byte(code, 0), reader.int(code, 3, 0)));
}
