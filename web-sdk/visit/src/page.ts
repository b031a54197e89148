/** The page's elements, and what is said in its lines. */

/** The element of an id; an error where the page has none. */
export function get<T extends HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as T;
}

/** Shows or hides an element. */
export function show(id: string, visible: boolean): void {
  get(id).hidden = !visible;
}

function line(id: string, text: string): void {
  const element = get(id);
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === '';
}

/** A calm line below the header; empty hides it. */
export const notice = (text: string) => line('notice', text);
/** A line about something that does not work; empty hides it. */
export const trouble = (text: string) => line('trouble', text);
