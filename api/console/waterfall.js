// Where a rollout's time went: its phases out of its timeline, as a waterfall. Drawn from the timeline and not from spans,
// because HotSwap keeps no trace store of its own.

import { h, svg, table } from "./dom.js";
import { OVER, moment, seconds } from "./format.js";

const WIDTH = 400;
const ROW = 22;

/** The phases: [{title, from, to, kind}], in order, each ending where the next begins. Times in ms. */
export function phasesOf(rollout, timeline, now = Date.now()) {
  const marks = [{ title: "planning and queueing", from: Date.parse(rollout.requestedAt), kind: "plan" }];
  const sorted = [...timeline].sort((one, other) => one.sequence - other.sequence);
  let end = rollout.finishedAt ? Date.parse(rollout.finishedAt) : null;
  for (const event of sorted) {
    const at = Date.parse(event.at);
    if (event.kind === "step") marks.push({ title: event.message.replace(/^step \d+: /, ""), from: at, kind: "step" });
    else if (event.kind === "status" && event.data?.to === "RollingBack") marks.push({ title: "undo", from: at, kind: "undo" });
    else if (event.kind === "status" && event.data?.to === "Paused") marks.push({ title: "paused", from: at, kind: "wait" });
    else if (event.kind === "status" && event.data?.to === "AwaitingApproval") marks.push({ title: "waiting for approval", from: at, kind: "wait" });
    else if (event.kind === "status" && event.data?.from === "Paused" && event.data?.to === "InProgress") marks.push({ title: "going on", from: at, kind: "step" });
    if (event.kind === "status" && OVER.includes(event.data?.to)) end ??= at;
  }
  end ??= OVER.includes(rollout.status) ? Date.parse(sorted.at(-1)?.at ?? rollout.requestedAt) : now;
  return marks.map((mark, at) => ({ ...mark, to: Math.max(mark.from, marks[at + 1]?.from ?? end) }));
}

/** The plan's steps: titles come with the plan, of a release before this one with each step's beginning. */
export function stepsOf(rollout, timeline) {
  const titles = new Map();
  for (const event of timeline) {
    if (event.kind === "plan") (event.data?.steps ?? []).forEach((title, at) => titles.set(at + 1, String(title)));
    const found = event.kind === "step" && /^step (\d+): (.*)$/s.exec(event.message);
    if (found) titles.set(Number(found[1]), found[2]);
  }
  if (rollout.stepNumber && rollout.stepTitle) titles.set(rollout.stepNumber, rollout.stepTitle);
  const complete = rollout.status === "Completed";
  const undone = !complete && (OVER.includes(rollout.status) || rollout.status === "RollingBack");
  return Array.from({ length: rollout.stepCount }, (_, at) => {
    const step = at + 1;
    const title = titles.get(step) ?? `step ${step}`;
    if (step > rollout.stepNumber) return { title, state: "later", says: undone ? "never begun" : "not begun" };
    if (undone) return { title, state: "undone", says: step === rollout.stepNumber ? "stopped here" : "taken back" };
    if (step === rollout.stepNumber && !complete) return { title, state: "now", says: "now" };
    return { title, state: "done", says: "done" };
  });
}

export function waterfall(rollout, timeline) {
  const phases = phasesOf(rollout, timeline);
  const first = phases[0].from;
  const whole = Math.max(1, phases.at(-1).to - first);
  const bar = (phase) => svg("svg", { class: `bar ${phase.kind}`, viewBox: `0 0 ${WIDTH} ${ROW}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", x: 0, y: 3, width: WIDTH, height: ROW - 6 }),
    svg("rect", {
      class: "fill", y: 3, height: ROW - 6,
      x: (WIDTH * (phase.from - first) / whole).toFixed(1),
      width: Math.max(2, WIDTH * (phase.to - phase.from) / whole).toFixed(1),
    }));
  return [
    table("Phases of this rollout with their durations", ["Phase", "Began", "Took", "Of the whole"], phases.map((phase) => [
      phase.title, moment(new Date(phase.from).toISOString(), true), seconds((phase.to - phase.from) / 1000), bar(phase)]), [2]),
    h("p", { class: "quiet" }, `${seconds(whole / 1000)} in all. Phases as the timeline tells them: HotSwap keeps no traces itself; look up the trace id in your trace store for spans.`),
  ];
}
