// What all parts of the page share: the service, words to whoever listens, and keys.

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";

export const model = meta("model");
export const path = `/v1/models/${encodeURIComponent(model)}`;
export const find = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];
export const panel = (name) => find(`[data-panel="${name}"]`);

let token = meta("csrf-token");

/** Ask the service; throws an Error with its own words. What is sent is JSON. */
export async function ask(method, url, body, options = {}) {
  const send = () => fetch(url, { method, body: body && JSON.stringify(body), ...options,
    headers: { "x-csrf-token": token, ...(body && { "content-type": "application/json" }) } });
  let reply = await send();
  if (reply.status === 403 && await renewed()) reply = await send();
  if (reply.status === 401) location.assign("/");
  const text = await reply.text();
  const isJson = (reply.headers.get("content-type") ?? "").includes("json");
  if (!reply.ok) throw new Error(isJson ? reason(JSON.parse(text)) : `status ${reply.status}`);
  return isJson ? JSON.parse(text) : text;
}

/** Tell whether there is another session than when the page was loaded: another tab logged in. */
async function renewed() {
  const was = token;
  const reply = await fetch("/v1/session");
  if (reply.ok) token = (await reply.json()).csrf_token ?? "";
  return token !== was;
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
