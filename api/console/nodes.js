// The nodes that registered, and what each environment asks of a rollout.

import { ask, query } from "./api.js";
import { faultOf } from "./fault.js";
import { badge, seconds } from "./format.js";
import { h, replace, table } from "./dom.js";

const LOOK_MS = 5_000;
const SILENT_SECONDS = 15; // a node tells of itself every few seconds

export function nodesView({ signal }) {
  const nodes = h("div", {});
  const environments = h("div", {});
  const told = h("div", {});

  async function look() {
    const found = await ask(`nodes${query({ limit: 100 })}`, { signal });
    const age = (node) => (Date.now() - Date.parse(node.lastSeenAt)) / 1000;
    replace(nodes, found.items.length
      ? table("Nodes", ["Node", "Environment", "State", "Last told", "Sandbox tier", "Router"], found.items.map((node) => [
        node.nodeId, node.environment,
        age(node) > SILENT_SECONDS ? badge("Lost", "silent") : badge("Ready"),
        `${seconds(age(node))} ago`, node.sandboxTier, h("code", {}, node.routerUrl),
      ]))
      : h("p", { class: "quiet" }, "No node has registered."),
    found.hasMore ? h("p", { class: "quiet" }, `The first 100 of ${found.total}.`) : null);
  }

  async function start() {
    let begun = false;
    while (!signal.aborted) {
      if (!document.hidden) {
        try {
          if (!begun) {
            const policies = await ask("environments", { signal });
            replace(environments, table("Environments", ["Environment", "Default strategy", "Approvals", "An Admin's"], policies.items.map((one) => [
              one.name, one.defaultStrategy, one.requiredApprovals, one.requireAdminApproval ? "required" : "not required"]), [2]));
            begun = true;
          }
          await look();
          told.replaceChildren();
        } catch (fault) {
          if (signal.aborted) return;
          if (!told.hasChildNodes()) told.replaceChildren(faultOf(fault));
        }
      }
      await new Promise((go) => { setTimeout(go, LOOK_MS); });
    }
  }

  return {
    title: "Nodes",
    content: [
      h("h1", {}, "Nodes"), told, nodes,
      h("h2", {}, "Environments"), environments,
    ],
    start,
  };
}
