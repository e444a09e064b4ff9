// What a person may do to a rollout now, and the dialog that asks once more before it is done.
//
// The table repeats what the api enforces (docs/commands.md), so that nobody is offered what would be refused; the api decides.

import { ask, wishKey } from "./api.js";
import { faultOf } from "./fault.js";
import { announce, h } from "./dom.js";
import { word } from "./format.js";

const ALIVE = ["Pending", "AwaitingApproval", "InProgress", "Paused"];

const ACTIONS = [
  { name: "approve", label: "Approve", who: "approver", when: ["AwaitingApproval"], look: "primary", tells: "It goes on as planned. Your approval counts for this plan and this artifact only." },
  { name: "reject", label: "Reject", who: "approver", when: ["AwaitingApproval"], reason: true, look: "danger", tells: "It ends here, and traffic stays on, or goes back to, the version in place." },
  { name: "pause", label: "Pause", who: "deployer", when: ["InProgress"], tells: "It stands still where it is. Its guards stay on." },
  { name: "resume", label: "Resume", who: "deployer", when: ["Paused"], look: "primary", tells: "It goes on from where it stands." },
  { name: "promote", label: "Promote", who: "deployer", when: ["InProgress", "Paused"], tells: "The wait of the present step ends, and the next step begins." },
  { name: "abort", label: "Abort", who: "deployer", when: ALIVE, reason: true, look: "danger", tells: "It stops, and everything it did is undone." },
  { name: "rollback", label: "Roll back", who: "deployer", when: ["InProgress", "Paused", "Completed"], reason: true, look: "danger", tells: "Traffic goes back to the version before. Of a completed rollout, this starts a new one." },
  { name: "retry", label: "Retry", who: "deployer", when: ["RolledBack", "Aborted", "Rejected", "Failed"], tells: "A new rollout of the same request begins, with every gate." },
];

const OPEN_TO_DEVELOPERS = ["Development", "QA"];

function may(me, action, rollout) {
  if (me.environments.length && !me.environments.includes(rollout.environment)) return false;
  if (me.roles.includes("Admin")) return true;
  if (action.who === "approver") return me.roles.includes("Approver");
  return me.roles.includes("Developer") && OPEN_TO_DEVELOPERS.includes(rollout.environment);
}

/** The buttons that make sense now for this person, and why there is none for a decision that waits for somebody else. */
export function actionsFor(me, rollout) {
  const own = me.user === rollout.initiatedBy;
  const open = ACTIONS.filter((one) => one.when.includes(rollout.status) && may(me, one, rollout))
    .filter((one) => one.name !== "rollback" || rollout.fromVersion !== null || rollout.status !== "Completed")
    .filter((one) => !(own && ["approve", "reject"].includes(one.name)));
  const notes = own && rollout.status === "AwaitingApproval"
    ? [h("p", { class: "quiet" }, "You started this rollout, so somebody else decides about it.")]
    : [];
  if (!open.length) return notes;
  return [
    h("div", { class: "actions", role: "group", "aria-label": "Decide about this rollout" }, open.map((one) =>
      h("button", {
        type: "button", class: one.look ?? null, "data-key": `do-${one.name}`, "aria-haspopup": "dialog",
        onclick: () => confirm(one, rollout),
      }, one.label))),
    ...notes,
  ];
}

function confirm(action, rollout) {
  const key = wishKey(); // one wish, however often a lost answer makes people press the button
  const told = h("div", {});
  const reason = h("textarea", {
    id: "reason", name: "reason", rows: 3, maxlength: 2000, required: action.reason, "aria-describedby": "reason-help",
  });
  const doing = h("button", { type: "submit", class: action.look ?? "primary" }, action.label);
  const dialog = h("dialog", { "aria-labelledby": "ask", "aria-describedby": "ask-tells" },
    h("form", { onsubmit: send },
      h("h2", { id: "ask" }, `${action.label} ${rollout.plugin} ${rollout.toVersion}?`),
      h("p", { id: "ask-tells" }, `${rollout.environment}, ${word(rollout.status)}. ${action.tells}`),
      h("label", { for: "reason" }, action.reason ? "Reason (required)" : "Reason"),
      reason,
      h("p", { id: "reason-help", class: "quiet" }, "Kept in the audit log, beside your name."),
      told,
      h("div", { class: "actions" }, doing,
        h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Cancel"))));

  async function send(event) {
    event.preventDefault();
    if (action.reason && !reason.value.trim()) {
      reason.setCustomValidity("Say why.");
      reason.reportValidity();
      reason.addEventListener("input", () => reason.setCustomValidity(""), { once: true });
      return;
    }
    doing.disabled = true;
    told.replaceChildren();
    const body = { reason: reason.value.trim() };
    if (action.name === "approve") body.planHash = rollout.planHash;
    try {
      const answer = await ask(`deployments/${rollout.deploymentId}/${action.name}`, {
        method: "POST", body, headers: { "Idempotency-Key": key },
      });
      dialog.close();
      announce(`${action.label}: ${answer.message}`);
      if (answer.deploymentId !== rollout.deploymentId) location.hash = `#/rollouts/${answer.deploymentId}`;
    } catch (fault) {
      told.replaceChildren(faultOf(fault));
    } finally {
      doing.disabled = false;
    }
  }

  dialog.addEventListener("close", () => {
    dialog.remove();
    const back = document.querySelector(`[data-key="do-${action.name}"]`) ?? document.querySelector("main h1");
    back?.focus({ preventScroll: true });
  });
  document.body.append(dialog);
  dialog.showModal();
  reason.focus();
}
