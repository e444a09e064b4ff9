// The list of rollouts: those that run, moving as they move, and those that are over.

import { ask, follow, query } from "./api.js";
import { faultOf } from "./fault.js";
import { announce, h, replace, table } from "./dom.js";
import { OVER, badge, moment, word } from "./format.js";

const RUNNING = ["Pending", "AwaitingApproval", "InProgress", "Paused", "RollingBack"];
const ENVIRONMENTS = ["Development", "QA", "Staging", "Production"];
const PAGE = 20;
const LOOK_MS = 20_000; // six requests a look: three tabs stay within the sixty a minute that a person has
const STREAMS = 3; // browsers open six connections to one server, and the page needs some
const NO_TIMELINE = 2 ** 31 - 1; // "go on behind this event": the list wants statuses only

export function rolloutsView({ signal }) {
  const wanted = Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? ""));
  const where = { pluginId: wanted.plugin ?? "", environment: wanted.environment ?? "", status: wanted.status ?? "" };
  const offset = Math.max(0, Number.parseInt(wanted.offset, 10) || 0);
  const known = new Map();
  const streams = new Map();
  let total = 0;
  let listed = [];

  const running = h("div", {});
  const past = h("div", {});
  const told = h("div", {});

  const choose = (name, label, values, current) => [
    h("div", {},
      h("label", { for: name }, label),
      h("select", { id: name, name }, h("option", { value: "" }, "all"),
        values.map((value) => h("option", { value, selected: value === current }, word(value))))),
  ];
  const go = (more) => {
    const next = { plugin: where.pluginId, environment: where.environment, status: where.status, ...more };
    location.hash = `#/rollouts${query(next)}`;
  };
  const filters = h("form", {
    class: "filters", role: "search", "aria-label": "Filter rollouts",
    onsubmit: (event) => {
      event.preventDefault();
      go(Object.fromEntries(new FormData(event.target)));
    },
  },
  h("div", {},
    h("label", { for: "plugin" }, "Plugin"),
    h("input", { id: "plugin", name: "plugin", value: where.pluginId, maxlength: 63, spellcheck: "false", autocapitalize: "none" })),
  choose("environment", "Environment", ENVIRONMENTS, where.environment),
  choose("status", "Status", [...RUNNING, ...OVER], where.status),
  h("button", { type: "submit" }, "Filter"));

  function draw() {
    const all = [...known.values()];
    const alive = all.filter((one) => !OVER.includes(one.status))
      .sort((one, other) => other.requestedAt.localeCompare(one.requestedAt));
    const over = listed.map((id) => known.get(id)).filter((one) => OVER.includes(one.status));
    replace(running, alive.length
      ? h("ul", { class: "cards" }, alive.map(card))
      : h("p", { class: "quiet" }, "Nothing is being rolled out now."));
    replace(past, over.length
      ? table("Rollouts that are over", ["Rollout", "Environment", "Strategy", "Status", "By", "Ended"], over.map((one) => [
        h("a", { href: `#/rollouts/${one.deploymentId}`, "data-key": one.deploymentId }, `${one.plugin} ${one.fromVersion ?? "(nothing)"} → ${one.toVersion}`),
        one.environment, one.strategy, badge(one.status), one.initiatedBy, moment(one.finishedAt ?? one.requestedAt),
      ]))
      : h("p", { class: "quiet" }, "None here."), pager());
  }

  function card(one) {
    const step = one.stepCount ? `Step ${one.stepNumber} of ${one.stepCount}: ${one.stepTitle}` : "Being planned";
    return h("li", { class: "card" },
      h("p", { class: "line" },
        h("a", { href: `#/rollouts/${one.deploymentId}`, "data-key": one.deploymentId }, `${one.plugin} ${one.fromVersion ?? "(nothing)"} → ${one.toVersion}`),
        badge(one.status)),
      h("p", { class: "quiet" }, `${one.environment} · ${one.strategy} · by ${one.initiatedBy}`),
      h("progress", { max: one.stepCount || 1, value: one.stepNumber, "aria-label": `Progress of ${one.plugin} ${one.toVersion}` }),
      h("p", {}, step, one.stepNumber ? ` · ${one.setWeightPercent} % set` : ""),
      one.waitingFor ? h("p", {}, h("strong", {}, "Waits for "), one.waitingFor) : null);
  }

  function pager() {
    if (total <= PAGE && offset === 0) return null;
    const last = Math.min(offset + PAGE, total);
    return h("nav", { class: "pager", "aria-label": "Pages" },
      h("button", { type: "button", "data-key": "newer", disabled: offset === 0, onclick: () => go({ offset: Math.max(0, offset - PAGE) || "" }) }, "Newer"),
      h("span", {}, `${Math.min(offset + 1, total)} to ${last} of ${total}`),
      h("button", { type: "button", "data-key": "older", disabled: last >= total, onclick: () => go({ offset: offset + PAGE }) }, "Older"));
  }

  function take(one, quietly) {
    const before = known.get(one.deploymentId);
    if (before && before.sequence > one.sequence) return;
    known.set(one.deploymentId, one);
    if (OVER.includes(one.status) && !listed.includes(one.deploymentId)) listed = [one.deploymentId, ...listed];
    if (!quietly && before && before.status !== one.status) announce(`${one.plugin} ${one.toVersion}: ${word(one.status)}`);
  }

  function watch() {
    for (const one of known.values()) {
      if (OVER.includes(one.status) || streams.has(one.deploymentId) || streams.size >= STREAMS) continue;
      const stop = new AbortController();
      const end = () => stop.abort();
      signal.addEventListener("abort", end);
      streams.set(one.deploymentId, stop);
      follow(`deployments/${one.deploymentId}/events`, {
        signal: stop.signal,
        after: NO_TIMELINE,
        on: (name, data) => {
          if (name !== "status") return;
          take(data);
          draw();
        },
      }).finally(() => {
        signal.removeEventListener("abort", end);
        streams.delete(one.deploymentId);
      });
    }
  }

  async function look() {
    const page = ask(`deployments${query({ ...where, limit: PAGE, offset })}`, { signal });
    const open = where.status || offset ? [] : RUNNING.map((status) =>
      ask(`deployments${query({ ...where, status, limit: PAGE })}`, { signal }));
    const [slice, ...alive] = await Promise.all([page, ...open]);
    total = slice.total;
    listed = slice.items.map((one) => one.deploymentId);
    const seen = [slice, ...alive].flatMap((one) => one.items);
    const ids = new Set(seen.map((one) => one.deploymentId));
    for (const id of known.keys()) if (!ids.has(id) && !streams.has(id)) known.delete(id);
    for (const one of seen) take(one, true);
    draw();
    watch();
  }

  async function start() {
    while (!signal.aborted) {
      if (!document.hidden) {
        try {
          await look();
          told.replaceChildren();
        } catch (fault) {
          if (signal.aborted) return;
          if (!told.hasChildNodes()) told.replaceChildren(faultOf(fault));
        }
      }
      await new Promise((go_) => { setTimeout(go_, LOOK_MS); });
    }
  }

  return {
    title: "Rollouts",
    content: [
      h("h1", {}, "Rollouts"), filters, told,
      h("section", { "aria-labelledby": "running" }, h("h2", { id: "running" }, "Running"), running),
      h("section", { "aria-labelledby": "past" }, h("h2", { id: "past" }, "Over"), past),
    ],
    start,
  };
}
