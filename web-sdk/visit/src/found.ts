/** The places that were found today, kept on this phone alone: names and times, no pictures. */

export interface Found {
  readonly slug: string;
  readonly title: string;
  /** Milliseconds since 1970. */
  readonly time: number;
}

const KEY = `delf-edge found ${location.pathname}`;

function sameDay(a: number, b: number): boolean {
  return new Date(a).toDateString() === new Date(b).toDateString();
}

/** Today's places, the newest first. */
export function foundToday(now = Date.now()): Found[] {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? '[]') as Found[];
    return kept.filter(place => typeof place.slug === 'string' && sameDay(place.time, now));
  } catch {
    return []; // storage is switched off, or holds something else
  }
}

/** Adds a place, or moves it to the front. */
export function remember(place: Found): Found[] {
  const list = [place, ...foundToday(place.time).filter(other => other.slug !== place.slug)];
  store(list);
  return list;
}

/** Forgets all places. */
export function forget(): void {
  store([]);
}

function store(list: Found[]): void {
  try {
    if (list.length === 0) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, JSON.stringify(list));
  } catch {
    // The list lives as long as the page.
  }
}
