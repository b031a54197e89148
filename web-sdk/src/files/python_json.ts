/**
 * JSON as Python's `json.dumps(..., sort_keys=True)` writes it, so that hashes of canonical text are the same here:
 * 1.0 stays 1.0, letters beyond ASCII are escaped, keys are in the order of their code points.
 */

/** How canonical text is laid out: `indent` null stands for `separators=(",", ":")`; `ascii` for `ensure_ascii`. */
export interface JsonStyle {
  readonly indent: number | null;
  readonly ascii: boolean;
}

/** A value of a JSON text; numbers keep the text that Python would write for them. */
export type JsonNode = string | {readonly plain: string} | JsonNode[] | Map<string, JsonNode>;

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const SPACE = /[ \t\r\n]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\.)*"/y;

/** Parses a JSON text; `SyntaxError` where it is none. Of a key that comes twice the last one counts, as in Python. */
export function parseJson(text: string): JsonNode {
  JSON.parse(text); // refuses what is no JSON, with a good message
  let at = 0;
  const take = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)![0];
    at += found.length;
    return found;
  };
  const value = (): JsonNode => {
    take(SPACE);
    const first = text[at];
    let node: JsonNode;
    if (first === '{') {
      const map = new Map<string, JsonNode>();
      at++;
      for (take(SPACE); text[at] !== '}'; take(SPACE)) {
        if (text[at] === ',') at++;
        take(SPACE);
        const key = JSON.parse(take(STRING)) as string;
        take(SPACE);
        at++; // the colon
        map.set(key, value());
      }
      at++;
      node = map;
    } else if (first === '[') {
      const list: JsonNode[] = [];
      at++;
      for (take(SPACE); text[at] !== ']'; take(SPACE)) {
        if (text[at] === ',') at++;
        list.push(value());
      }
      at++;
      node = list;
    } else if (first === '"') node = JSON.parse(take(STRING)) as string;
    else if (first === 't' || first === 'f' || first === 'n') node = {plain: take(/true|false|null/y)};
    else node = {plain: numberText(take(NUMBER))};
    return node;
  };
  return value();
}

/** The canonical text of a value, keys sorted. */
export function dumpJson(node: JsonNode, style: JsonStyle = {indent: null, ascii: true}): string {
  const {indent, ascii} = style;
  const quoted = (text: string) => quote(text, ascii);
  const write = (value: JsonNode, depth: number): string => {
    if (typeof value === 'string') return quoted(value);
    if (!Array.isArray(value) && !(value instanceof Map)) return value.plain;
    const [open, close] = Array.isArray(value) ? '[]' : '{}';
    const items = Array.isArray(value)
      ? value.map(item => write(item, depth + 1))
      : [...value.entries()]
          .sort(([a], [b]) => compareCodePoints(a, b))
          .map(([key, item]) => `${quoted(key)}:${indent === null ? '' : ' '}${write(item, depth + 1)}`);
    if (!items.length) return open + close;
    if (indent === null) return open + items.join(',') + close;
    const inside = '\n' + ' '.repeat(indent * (depth + 1));
    return open + inside + items.join(',' + inside) + '\n' + ' '.repeat(indent * depth) + close;
  };
  return write(node, 0);
}

/** Order of Python's strings. */
export function compareCodePoints(a: string, b: string): number {
  const x = Array.from(a), y = Array.from(b);
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const d = x[i].codePointAt(0)! - y[i].codePointAt(0)!;
    if (d) return d;
  }
  return x.length - y.length;
}

function numberText(token: string): string {
  if (/^-?\d+$/.test(token)) return BigInt(token).toString();
  return floatRepr(Number(token));
}

/** `repr(float)` of Python. */
export function floatRepr(x: number): string {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? 'NaN' : x > 0 ? 'Infinity' : '-Infinity';
  if (x === 0) return Object.is(x, -0) ? '-0.0' : '0.0';
  const [mantissa, power] = Math.abs(x).toExponential().split('e');
  const sign = x < 0 ? '-' : '', exponent = Number(power), digits = mantissa.replace('.', '');
  if (exponent < -4 || exponent >= 16) {
    const two = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${mantissa}e${exponent < 0 ? '-' : '+'}${two}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`;
}

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"', '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t', '\f': '\\f', '\b': '\\b',
};

function quote(text: string, ascii: boolean): string {
  const unit = (c: string) => SHORT[c] ?? '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0');
  // Without the flag u: UTF-16 units, as Python escapes them.
  return `"${text.replace(ascii ? /["\\]|[^ -~]/g : /["\\\u0000-\u001f]/g, unit)}"`;
}
