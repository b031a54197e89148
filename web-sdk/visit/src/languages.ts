/** The page's words: one file a language, loaded when it is chosen. Names of places come from the database instead. */

export const LANGUAGES: Readonly<Record<string, string>> = {
  en: 'English',
  de: 'Deutsch',
  fr: 'Français',
  es: 'Español',
  it: 'Italiano',
  pl: 'Polski',
  ja: '日本語',
  ar: 'العربية',
};
const RIGHT_TO_LEFT = new Set(['ar']);
const KEY = 'delf-edge language';

export type Words = Readonly<Record<string, string>>;

let words: Words = {};
let chosen = 'en';

/** The language in use, a key of `LANGUAGES`. */
export function language(): string {
  return chosen;
}

/** What a visitor wants to read, the most wanted first. */
export function wanted(): string[] {
  return [...new Set([chosen, ...navigator.languages])];
}

/** Words of the page; `{name}` in them is replaced. */
export function say(key: string, values: Readonly<Record<string, string | number>> = {}): string {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (name in values ? String(values[name]) : whole));
}

/** The language in use as the visitor's own country writes it: en-GB and en-US have other hours of the day. */
function locale(): string {
  return navigator.languages.find(tag => tag.split('-')[0].toLowerCase() === chosen) ?? chosen;
}

/** A time of the day as the language writes it. */
export function timeOfDay(time: number): string {
  return new Intl.DateTimeFormat(locale(), {hour: '2-digit', minute: '2-digit'}).format(time);
}

/** A number as the language writes it. */
export function number(value: number, digits = 0): string {
  return new Intl.NumberFormat(locale(), {maximumFractionDigits: digits}).format(value);
}

function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is switched off: the browser's language is used
  }
}

/** The language to begin with: the one chosen before, else the first of the browser's that there is. */
export function first(): string {
  const found = [remembered(), ...navigator.languages].map(tag => tag?.split('-')[0].toLowerCase() ?? '');
  return found.find(tag => tag in LANGUAGES) ?? 'en';
}

/** Loads a language and writes its words into the page. */
export async function choose(tag: string): Promise<void> {
  const answer = await fetch(`languages/${tag}.json`);
  if (!answer.ok) throw new Error(`languages/${tag}.json: status ${answer.status}`);
  words = (await answer.json()) as Words;
  chosen = tag;
  try {
    localStorage.setItem(KEY, tag);
  } catch {
    // It is asked for again next time.
  }
  document.documentElement.lang = tag;
  document.documentElement.dir = RIGHT_TO_LEFT.has(tag) ? 'rtl' : 'ltr';
  for (const element of document.querySelectorAll<HTMLElement>('[data-text]')) {
    element.textContent = say(element.dataset.text!);
  }
}
