// The evidence on the new version against the old one: a chart, and the same as a table.

import { h, svg, table } from "./dom.js";
import { badge, moment, number, percent } from "./format.js";

const WIDTH = 340;
const HEIGHT = 56;
const LEFT = 12;
const RIGHT = WIDTH - 12;
const AXIS = 30;

const TITLES = {
  "error-rate": "Requests that failed",
  "error-rate-vs-baseline": "More failures than the old version",
  "latency-p99": "Requests slower than the p99 limit",
  "latency-vs-baseline": "Requests slower than the old version's tail",
  flooded: "Requests turned away for one tenant's flood",
};

const OWN = "provider"; // a metric that the rollout brought itself has one, and a unit of its own
const figure = (metric, value) => (OWN in metric ? number(value) : percent(value));

export function verdictOf(rollout) {
  const verdict = rollout.verdict;
  if (!verdict) return [h("p", { class: "quiet" }, "Nothing has been judged yet."), experimentOf(rollout.experiment)];
  const oldErrors = verdict.metrics.find((one) => one.metric === "error-rate-vs-baseline");
  const charts = verdict.metrics
    .filter((one) => one.metric in TITLES || OWN in one)
    .filter((one) => Number.isFinite(one.estimate))
    .map((one) => chart(one, oldFigure(one, oldErrors), rollout));
  return [
    h("p", { class: "line" }, badge(verdict.outcome), h("span", {}, verdict.reason)),
    h("p", { class: "quiet" }, `${number(verdict.candidateRequests)} requests to ${rollout.toVersion}, ${number(verdict.baselineRequests)} to ${rollout.fromVersion ?? "no earlier version"}; seen `, moment(verdict.takenAt), "."),
    verdict.nodesSilent.length ? h("p", { class: "notice wait" }, `No figures from ${verdict.nodesSilent.join(", ")}.`) : null,
    charts.length ? [legend(rollout), h("div", { class: "charts" }, charts)] : null,
    h("details", { open: !charts.length, "data-key": "figures" },
      h("summary", {}, "All figures as a table"),
      table("Figures of the verdict", ["Metric", "Outcome", "New", "Bounds", "Limit", "Old", "Requests", "In words"], verdict.metrics.map((one) => [
        one.metric, badge(one.outcome), figure(one, one.estimate),
        Number.isFinite(one.lower) || Number.isFinite(one.upper) ? `${figure(one, one.lower)} to ${figure(one, one.upper)}` : "–",
        figure(one, one.threshold), figure(one, one.baselineEstimate), number(one.n), one.explanation,
      ]), [2, 3, 4, 5, 6])),
    experimentOf(rollout.experiment),
  ];
}

/** What the old version did in the same measure. A difference has none: there the old version is the zero. */
function oldFigure(metric, oldErrors) {
  if (metric.metric === "error-rate") return oldErrors?.baselineEstimate ?? null;
  if (metric.metric === "error-rate-vs-baseline") return null;
  return metric.baselineEstimate ?? null;
}

function legend(rollout) {
  const key = (shape, text) => h("li", {}, svg("svg", { viewBox: "0 0 22 14", class: "key", "aria-hidden": "true" }, shape), text);
  return h("ul", { class: "legend" },
    key(svg("g", {}, svg("line", { class: "bounds", x1: 1, x2: 21, y1: 7, y2: 7 }), svg("circle", { class: "new", cx: 11, cy: 7, r: 4.5 })), `${rollout.toVersion} with its bounds`),
    rollout.fromVersion ? key(svg("path", { class: "old", d: "M11 2l5 5-5 5-5-5z" }), rollout.fromVersion) : null,
    key(svg("line", { class: "limit", x1: 11, x2: 11, y1: 0, y2: 14 }), "limit"));
}

function chart(metric, old, rollout) {
  const title = TITLES[metric.metric] ?? metric.metric;
  const values = [metric.estimate, metric.lower, metric.upper, metric.threshold, old].filter(Number.isFinite);
  const low = Math.min(0, ...values);
  const high = Math.max(...values, low + 1e-9) + (Math.max(...values) - low) * 0.08;
  const x = (value) => Math.min(RIGHT, Math.max(LEFT, LEFT + (RIGHT - LEFT) * (value - low) / (high - low)));
  const told = [
    `${title}: ${metric.outcome}.`,
    `${rollout.toVersion} ${figure(metric, metric.estimate)}, between ${figure(metric, metric.lower)} and ${figure(metric, metric.upper)}.`,
    Number.isFinite(old) ? `${rollout.fromVersion} ${figure(metric, old)}.` : "",
    Number.isFinite(metric.threshold) ? `Limit ${figure(metric, metric.threshold)}.` : "",
  ].filter(Boolean).join(" ");
  return h("figure", { class: "card" },
    h("figcaption", { class: "line" }, title, badge(metric.outcome)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told },
      svg("line", { class: "axis", x1: LEFT, x2: RIGHT, y1: AXIS, y2: AXIS }),
      Number.isFinite(metric.threshold) ? svg("line", { class: "limit", x1: x(metric.threshold), x2: x(metric.threshold), y1: 8, y2: 48 }) : null,
      Number.isFinite(metric.lower) && Number.isFinite(metric.upper)
        ? svg("line", { class: "bounds", x1: x(metric.lower), x2: x(metric.upper), y1: AXIS - 8, y2: AXIS - 8 }) : null,
      svg("circle", { class: "new", cx: x(metric.estimate), cy: AXIS - 8, r: 6 }),
      Number.isFinite(old) ? svg("path", { class: "old", d: `M${x(old)} ${AXIS + 3}l6 6-6 6-6-6z` }) : null),
    h("p", { class: "quiet" }, `New ${figure(metric, metric.estimate)} (${figure(metric, metric.lower)} to ${figure(metric, metric.upper)})${Number.isFinite(old) ? `, old ${figure(metric, old)}` : ""}, limit ${figure(metric, metric.threshold)}`));
}

function experimentOf(experiment) {
  if (!experiment) return null;
  return [
    h("h3", {}, `A/B test: ${experiment.winner === "None" ? "no winner yet" : `${experiment.winner} is better`}`),
    h("p", {}, experiment.reason),
    table("Figures of the A/B test", ["Metric", "Better", `A, ${experiment.aVersion}`, `B, ${experiment.bVersion}`, "B − A", "In words"], experiment.metrics.map((one) => [
      one.metric, one.better, `${percent(one.aEstimate)} of ${number(one.aN)}`, `${percent(one.bEstimate)} of ${number(one.bN)}`,
      `${percent(one.lower)} to ${percent(one.upper)}`, one.explanation,
    ]), [2, 3, 4]),
  ];
}
