// Asking the service that served this page. Addresses are relative: the page may lie below a path of a proxy.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Refused extends Error {
  // status 0: the service did not answer
  constructor(status, message, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait; // seconds until another try makes sense
  }
}

// The answer to a request: JSON, or with `raw` a Blob. `path` has no slash at its beginning.
export async function request(method, path, { query = {}, body, json, raw = false, language, headers = {}, seconds = 30 } = {}) {
  const url = path + (Object.keys(query).length ? "?" + new URLSearchParams(query) : "");
  const options = { method, body, headers: { ...headers }, cache: raw ? "default" : "no-store", signal: AbortSignal.timeout(seconds * 1000) };
  if (language) options.headers["accept-language"] = language;
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(url, options);
    if (response.ok) return raw ? await response.blob() : await response.json();
  } catch {
    throw new Refused(0, "The service does not answer.");
  }
  const problem = await response.json().catch(() => ({ error: response.statusText }));
  throw new Refused(response.status, problem.error, Number(response.headers.get("retry-after")) || 0);
}

export const mediaPath = (slug, name) => `v1/landmarks/${encodeURIComponent(slug)}/media/${encodeURIComponent(name)}`;
export const thumbnailPath = (id) => `v1/images/${id}/thumbnail`;
