// What all parts of the page share: the service, words to whoever listens, and keys.

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";

export const model = meta("model");
export const path = `/v1/models/${encodeURIComponent(model)}`;
export const find = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];
export const panel = (name) => find(`[data-panel="${name}"]`);

/** Ask the service; throws an Error with its own words. What is sent is JSON. */
export async function ask(method, url, body, options = {}) {
  const headers = { "x-csrf-token": meta("csrf-token") };
  if (body !== undefined) headers["content-type"] = "application/json";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const reply = await fetch(url, { method, headers, body: sent, ...options });
  if (reply.status === 401) location.assign("/");
  const text = await reply.text();
  const isJson = (reply.headers.get("content-type") ?? "").includes("json");
  if (!reply.ok) throw new Error(isJson ? reason(JSON.parse(text)) : `status ${reply.status}`);
  return isJson ? JSON.parse(text) : text;
}

function reason(problem) {
  const places = (problem.errors ?? []).map((e) => `${e.pointer} ${e.message}`);
  return places.length ? places.join("; ") : problem.detail;
}

/** Say something to screen readers, politely. */
export function say(text) {
  find("#said").textContent = text;
}

/** Make an element: no text that comes from the service is ever read as HTML here. */
export function make(tag, text = "", attributes = {}) {
  const found = document.createElement(tag);
  found.textContent = text;
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  return found;
}

/** Buttons wait for this script; without it they could do nothing. */
export function enable(root) {
  for (const part of all("button:disabled, input:disabled", root)) part.disabled = false;
}

export const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");
