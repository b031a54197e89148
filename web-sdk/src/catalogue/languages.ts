/** The best language for somebody: the lookup of RFC 4647, section 3.4, as `delf_edge/catalogue/languages.py`. */

const DEFAULT_LANGUAGE = 'en';

/**
 * The first wanted language that is available as it is, shortened from its end or lengthened; else English, else the first
 * in the alphabet; null where nothing is available.
 */
export function chooseLanguage(available: Iterable<string>, wanted: readonly string[]): string | null {
  const known = new Map([...available].sort().map(tag => [tag.toLowerCase(), tag]));
  for (const tag of [...wanted, DEFAULT_LANGUAGE]) {
    const parts = tag.toLowerCase().split('-');
    for (let n = parts.length; n > 0; n--) {
      const own = known.get(parts.slice(0, n).join('-'));
      if (own !== undefined) return own;
    }
    const longer = [...known].find(([own]) => own.startsWith(`${parts[0]}-`));
    if (longer !== undefined) return longer[1];
  }
  return known.values().next().value ?? null;
}
