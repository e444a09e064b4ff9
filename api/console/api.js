// Speaks to the api: the login, requests with its token, event streams. The token lives in this page and in the tab's
// sessionStorage; it is sent in a header only and never part of an address.

const ROOT = new URL("../api/v1/", import.meta.url);
const KEY = "hotswap.session";
const RENEW_BEFORE_MS = 60_000;
const SILENCE_MS = 45_000; // the api speaks at least every 15 s

let session = remembered();
let renewing = null;
let onSignedOut = () => {};

/** What the api refused, in its own words. */
export class Refused extends Error {
  constructor(status, error, traceId, retryAfter) {
    super(error?.message ?? `the api answered ${status}`);
    this.status = status;
    this.details = error?.details ?? [];
    this.traceId = error?.traceId ?? traceId ?? "";
    this.retryAfter = retryAfter;
  }
}

export const signedIn = () => session !== null;
export const whenSignedOut = (action) => { onSignedOut = action; };

function remembered() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY));
    return typeof found?.token === "string" ? found : null;
  } catch {
    return null;
  }
}

function keep(found) {
  session = found;
  if (found === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, JSON.stringify(found));
}

const fromLogin = (answer) => ({
  token: answer.token, refreshToken: answer.refreshToken, expiresAt: Date.parse(answer.expiresAt), ends: true,
});

export async function signIn(user, password) {
  keep(fromLogin(await ask("authentication/login", { method: "POST", body: { user, password }, open: true })));
}

/** Sign in with a token that was made elsewhere. Raises Refused when nobody knows it. */
export async function useToken(token) {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Refused(401, { message: "a token has no spaces and only plain characters" });
  keep({ token, ends: false });
  try {
    return await ask("authentication/me", { keepSession: true });
  } catch (fault) {
    keep(null);
    throw fault;
  }
}

export async function signOut() {
  const ends = session?.ends;
  try {
    if (ends) await ask("authentication/logout", { method: "POST", keepSession: true });
  } finally {
    keep(null);
    onSignedOut("");
  }
}

/** One request at a time renews: a refresh token is good once. */
async function renewed() {
  if (!session?.refreshToken || session.expiresAt - Date.now() > RENEW_BEFORE_MS) return;
  renewing ??= (async () => {
    try {
      const answer = await ask("authentication/refresh", {
        method: "POST", body: { refreshToken: session.refreshToken }, open: true,
      });
      keep(fromLogin(answer));
    } catch (fault) {
      if (fault instanceof Refused && fault.status === 401) ended("Your session has ended.");
      else if (session && session.expiresAt < Date.now()) throw fault;
    } finally {
      renewing = null;
    }
  })();
  await renewing;
}

function ended(why) {
  keep(null);
  onSignedOut(why);
}

async function answerOf(path, { method = "GET", body, headers = {}, open = false, keepSession = false, signal } = {}) {
  if (!open) await renewed();
  if (!open && session === null) throw new Refused(401, { message: "you are signed out" });
  const sent = { Accept: "application/json", ...headers };
  if (!open) sent.Authorization = `Bearer ${session.token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), {
      method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal,
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Refused(0, { message: "the api does not answer; is it running, and the network up?" });
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const refused = new Refused(
    answer.status, told?.error, answer.headers.get("X-Trace-Id"), Number(answer.headers.get("Retry-After")) || 0);
  if (answer.status === 401 && !open && !keepSession) ended("Your session has ended.");
  throw refused;
}

/** The answer's JSON (null when it has no body). Raises Refused. */
export async function ask(path, options = {}) {
  const answer = await answerOf(path, options);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

export function query(values) {
  const set = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

/** Names one wish: a repeat under it is obeyed once. Not randomUUID, which plain http does not have. */
export function wishKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Follow an event stream until `signal` aborts or the api says `end`; come back with Last-Event-ID after a break.
 * EventSource cannot send a token, so the answer's body is read here. `on(name, data)`; `state("live" | "away", why)`.
 */
export async function follow(path, { on, state = () => {}, signal, after = 0 }) {
  let last = after;
  let wait = 1000;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let silence;
    const heard = () => { clearTimeout(silence); silence = setTimeout(stop, SILENCE_MS); };
    let pause = 0;
    try {
      heard();
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": String(last) } : {}) };
      const answer = await answerOf(path, { headers, signal: attempt.signal });
      state("live", "");
      for await (const event of events(answer.body, heard)) {
        if (event.retry) wait = event.retry;
        if (event.id) last = Number(event.id);
        if (!event.name) continue;
        on(event.name, JSON.parse(event.data));
        if (event.name === "end") return;
      }
      if (!signal.aborted) state("away", "the api ended the stream"); // it stops, or was replaced
    } catch (fault) {
      if (signal.aborted) return;
      if (fault instanceof Refused && [400, 401, 403, 404].includes(fault.status)) { state("away", fault.message); return; }
      pause = (fault.retryAfter ?? 0) * 1000;
      state("away", fault instanceof Refused ? fault.message : "the connection broke");
    } finally {
      clearTimeout(silence);
      signal.removeEventListener("abort", stop);
      attempt.abort();
    }
    await new Promise((go) => { setTimeout(go, Math.max(wait, pause)); });
  }
}

/** Server-sent events out of a stream of bytes (the WHATWG format, as far as the api speaks it). */
export async function* events(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { name: "", data: "", id: "", retry: 0 };
      const data = [];
      for (const line of block.split(/\r?\n/)) {
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") event.name = text;
        else if (field === "data") data.push(text);
        else if (field === "id") event.id = text;
        else if (field === "retry") event.retry = Number(text) || 0;
      }
      event.data = data.join("\n");
      yield event;
    }
  }
}
