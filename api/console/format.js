// Words and figures as people read them. Pure.

import { h } from "./dom.js";

export const OVER = ["Completed", "RolledBack", "Aborted", "Rejected", "Superseded", "Failed"];

const TONES = {
  Completed: "good", Ready: "good", Standby: "good", Pass: "good", healthy: "good", done: "good",
  InProgress: "busy", Starting: "busy", Draining: "busy", now: "busy", Pending: "calm",
  AwaitingApproval: "wait", Paused: "wait", Inconclusive: "wait", RollingBack: "wait", Lost: "wait",
  Failed: "bad", RolledBack: "bad", Aborted: "bad", Rejected: "bad", Fail: "bad", Error: "bad", Crashed: "bad",
};

const WORDS = {
  AwaitingApproval: "Awaiting approval", InProgress: "In progress", RollingBack: "Rolling back", RolledBack: "Rolled back",
};

export const word = (status) => WORDS[status] ?? String(status);

/** A status in words, with a colour that is never all there is to tell it by. */
export function badge(status, text = word(status)) {
  return h("span", { class: `badge ${TONES[status] ?? "calm"}` }, text);
}

export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  const whole = Math.max(0, value);
  if (whole < 10) return `${whole.toFixed(1)} s`;
  if (whole < 60) return `${Math.round(whole)} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(whole % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** An instant as local date and time; the exact one is its datetime attribute. */
export function moment(iso, timeOnly = false) {
  if (!iso) return "–";
  const at = new Date(iso);
  const clock = at.toLocaleTimeString("en-GB");
  const text = timeOnly ? clock : `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock}`;
  return h("time", { datetime: iso, title: iso }, text);
}

export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  return `${Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2)} %`;
}

export const number = (value) => (Number.isFinite(value) ? value.toLocaleString("en-GB", { maximumFractionDigits: 4 }) : "–");

export function bytes(value) {
  if (!value) return "–";
  return value < 1024 * 1024 ? `${Math.round(value / 1024)} KiB` : `${(value / 1024 / 1024).toFixed(1)} MiB`;
}
