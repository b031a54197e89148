// The texts of a page in one of its languages.

import { request } from "./requests.js";

const known = new Map(); // language -> key -> text
let current = { language: "en", texts: {} };
let house = {}; // language -> key -> text, of the branding file

export const setHouseTexts = (texts) => { house = texts; };
export const language = () => current.language;

// The text of a key, with {names} filled in.
export function t(key, values = {}) {
  return (current.texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export async function texts(wanted) {
  if (!known.has(wanted)) known.set(wanted, { ...(await request("GET", `languages/${wanted}.json`)), ...house[wanted] });
  return known.get(wanted);
}

export async function useLanguage(wanted) {
  current = { language: wanted, texts: await texts(wanted) };
  document.documentElement.lang = wanted;
  document.documentElement.dir = current.texts.direction;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.ariaLabel = t(element.dataset.label);
}

// The first language of the browser that the page has.
export function preferred(available, fallback) {
  const own = navigator.languages.map((tag) => tag.toLowerCase().split("-")[0]);
  return own.find((tag) => available.includes(tag)) ?? fallback;
}
