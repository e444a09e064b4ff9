// One rollout: where it stands, what it waits for, its steps, nodes, evidence and history, moving as it moves.

import { ask, follow, query } from "./api.js";
import { actionsFor } from "./actions.js";
import { faultOf } from "./fault.js";
import { announce, h, outward, replace, table } from "./dom.js";
import { OVER, badge, bytes, moment, number, word } from "./format.js";
import { verdictOf } from "./verdict.js";
import { stepsOf, waterfall } from "./waterfall.js";

const TICK_MS = 1000;

export function rolloutView({ me, signal, argument: id }) {
  let rollout = null;
  const timeline = [];
  const parts = Object.fromEntries(
    ["told", "head", "actions", "tree", "verdict", "phases", "story", "about", "audit", "links"].map((name) => [name, h("div", {})]));
  const link = h("p", { class: "quiet" }, "Connecting …");
  const heading = h("h1", {}, "Rollout");

  const section = (key, title, ...content) =>
    h("section", { "aria-labelledby": key }, h("h2", { id: key }, title), ...content);

  let drawing = false;
  function draw() {
    if (drawing) return; // many events arrive at once: one picture of them
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      if (rollout && !signal.aborted) drawAll();
    });
  }

  function drawAll() {
    heading.textContent = `${rollout.plugin} ${rollout.fromVersion ?? "(nothing)"} → ${rollout.toVersion}`;
    document.title = `${heading.textContent} · HotSwap`;
    replace(parts.head, headOf(rollout));
    replace(parts.actions, actionsFor(me, rollout));
    replace(parts.tree, stepTree(rollout, timeline), nodesOf(rollout.nodes));
    replace(parts.verdict, verdictOf(rollout));
    replace(parts.phases, waterfall(rollout, timeline));
    replace(parts.story, storyOf(timeline));
  }

  function on(name, data) {
    if (name === "status") {
      const before = rollout;
      if (before && before.sequence > data.sequence) return;
      rollout = data;
      if (before && before.status !== data.status) announce(`The rollout is ${word(data.status)}. ${data.outcomeReason}`);
      else if (before && before.stepNumber !== data.stepNumber) announce(`Step ${data.stepNumber}: ${data.stepTitle}`);
      if (before && before.status !== data.status) audit().catch((fault) => { if (!signal.aborted) replace(parts.audit, faultOf(fault)); });
      if (OVER.includes(data.status)) link.textContent = "It is over; nothing moves any more.";
    } else if (name === "timeline" && !timeline.some((one) => one.sequence === data.sequence)) {
      timeline.push(data);
    }
    draw();
  }

  async function start() {
    try {
      rollout = await ask(`deployments/${id}`, { signal });
    } catch (fault) {
      if (!signal.aborted) { link.remove(); parts.told.replaceChildren(faultOf(fault)); }
      return;
    }
    drawAll();
    replace(parts.links, linksOf(rollout));
    const clock = setInterval(() => { if (!OVER.includes(rollout.status) && !document.hidden) draw(); }, TICK_MS);
    signal.addEventListener("abort", () => clearInterval(clock));
    follow(`deployments/${id}/events`, {
      on, signal,
      state: (now, why) => { link.textContent = now === "live" ? "Live: this page moves with the rollout." : `Not live: ${why}. Trying again.`; },
    });
    about().catch((fault) => { if (!signal.aborted) parts.about.replaceChildren(faultOf(fault)); });
  }

  async function about() {
    const plugin = await ask(`plugins/${encodeURIComponent(rollout.plugin)}`, { signal });
    parts.about.replaceChildren(
      h("p", {}, plugin.description || "It has no description."),
      h("p", { class: "quiet" }, `${plugin.displayName} · ${plugin.type}${plugin.author ? ` · by ${plugin.author}` : ""}`));
    await audit();
  }

  async function audit() {
    if (!me.roles.includes("Admin")) return;
    const found = await ask(`audit-logs${query({ entity: id, limit: 20 })}`, { signal });
    if (!found.items.length) return;
    replace(parts.audit, h("h3", {}, "Audit"), table("Audit entries of this rollout", ["What", "Who", "When", "Trace"],
      found.items.map((one) => [one.eventType, one.user, moment(one.at), one.traceId ? h("code", {}, one.traceId) : "–"])));
  }

  return {
    title: "Rollout",
    content: [
      h("p", {}, h("a", { href: "#/rollouts" }, "All rollouts")),
      heading, link, parts.told, parts.head, parts.actions,
      section("steps", "Steps and nodes", parts.tree),
      section("evidence", "Verdict", parts.verdict),
      section("phases", "Where the time went", parts.phases),
      section("story", "Timeline", parts.story),
      section("about", "About", parts.about, parts.audit, parts.links),
    ],
    start,
  };
}

function headOf(one) {
  const actual = one.verdict?.actualWeightPercent;
  const whose = one.strategy === "Rolling" ? "nodes" : "tenants";
  return [
    h("p", { class: "line" }, badge(one.status), h("span", {}, `${one.environment} · ${one.strategy} · by ${one.initiatedBy}`)),
    one.reason ? h("p", {}, h("q", {}, one.reason)) : null,
    one.waitingFor ? h("p", { class: "notice wait" }, h("strong", {}, "Waits for "), one.waitingFor) : null,
    one.status === "AwaitingApproval"
      ? h("p", {}, `${one.approvals.length} of ${one.approvalsRequired} approvals${one.approvals.length ? `: ${one.approvals.map((given) => given.approver).join(", ")}` : ""}.`)
      : null,
    one.outcomeReason ? h("p", { class: "notice bad" }, h("strong", {}, "Because "), one.outcomeReason) : null,
    one.whatToDo ? h("p", { class: "notice bad" }, h("strong", {}, "What to do: "), one.whatToDo) : null,
    h("progress", { max: one.stepCount || 1, value: one.stepNumber, "aria-label": "Steps begun" }),
    h("dl", { class: "facts" },
      fact("Step", one.stepCount ? `${one.stepNumber} of ${one.stepCount}` : "being planned"),
      fact("Set", `${one.setWeightPercent} % of ${whose}`),
      fact("Actual", Number.isFinite(actual) ? `${actual.toFixed(1)} % of requests` : "not measured"),
      fact("Route generation", String(one.routeGeneration)),
      fact("Begun", moment(one.startedAt ?? one.requestedAt)),
      one.finishedAt ? fact("Ended", moment(one.finishedAt)) : null),
  ];
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function stepTree(one, timeline) {
  if (!one.stepCount) return h("p", { class: "quiet" }, "It is not planned yet.");
  return h("ol", { class: "steps" }, stepsOf(one, timeline).map((step) =>
    h("li", { class: step.state, "aria-current": step.state === "now" ? "step" : null },
      h("span", { class: "title" }, step.title),
      badge(step.state, step.says),
      step.state === "now" ? h("span", { class: "quiet" }, ` ${one.setWeightPercent} % set${Number.isFinite(one.verdict?.actualWeightPercent) ? `, ${one.verdict.actualWeightPercent.toFixed(1)} % actual` : ""}`) : null)));
}

function nodesOf(nodes) {
  if (!nodes.length) return h("p", { class: "quiet" }, "No node has taken part yet.");
  return h("ul", { class: "cards" }, nodes.map((node) => h("li", { class: "card" },
    h("h3", { class: "line" }, node.nodeId, badge(node.state), h("span", { class: "quiet" }, `generation ${node.generation}`)),
    node.detail ? h("p", {}, node.detail) : null,
    node.hosts.length
      ? table(`Hosts of ${node.nodeId}`, ["Version", "State", "Health", "Process", "Memory", "In flight"],
        node.hosts.map((host) => [host.version, badge(host.state), healthOf(host), host.pid ?? "–", bytes(host.memoryBytes), host.inFlight]), [3, 4, 5])
      : h("p", { class: "quiet" }, "It told of no hosts."))));
}

function healthOf(host) {
  const trouble = [
    host.probeFailures ? `${host.probeFailures} probes failed in a row` : "",
    host.crashes ? `crashed ${host.crashes === 1 ? "once" : `${number(host.crashes)} times`}` : "",
    host.lastError,
  ].filter(Boolean).join("; ");
  if (trouble || host.state === "Crashed") return badge("Failed", trouble || "crashed");
  if (host.state === "Evicted") return "loads at the next request";
  return ["Ready", "Standby"].includes(host.state) ? badge("healthy") : "–";
}

function storyOf(timeline) {
  if (!timeline.length) return h("p", { class: "quiet" }, "Nothing has been told yet.");
  const sorted = [...timeline].sort((one, other) => other.sequence - one.sequence);
  return h("ol", { class: "story", reversed: true }, sorted.map((event) =>
    h("li", {}, moment(event.at, true), " ", h("span", { class: "kind" }, event.kind), " ", event.message)));
}

function linksOf(one) {
  return h("dl", { class: "facts" },
    fact("Deployment", h("code", {}, one.deploymentId)),
    fact("Workflow", one.links.temporalUi ? outward(one.links.temporalUi, "Open in the Temporal Web UI") : h("code", {}, one.workflowId)),
    fact("Plan", h("code", {}, one.planHash.slice(0, 16) || "–")),
    one.retryOf ? fact("Retry of", h("a", { href: `#/rollouts/${one.retryOf}` }, one.retryOf)) : null);
}
