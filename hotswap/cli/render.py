"""Draws a deployment's JSON: a live tree for a terminal, one plain line for a log. Pure: JSON in, text out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from hotswap.cli.evidence import add_experiment, experiment_phrase
from hotswap.cli.output import STATUS_STYLE, clean, clock, duration, instant, size, styled

BAR = 24
"""Width of the progress bar in characters."""

COMMANDS = {
    "AwaitingApproval": ("approve {id} --as approver", "reject {id} --as approver --reason WHY"),
    "Paused": ("resume {id}", "promote {id}", "abort {id} --reason WHY"),
    "RolledBack": ("retry {id}",),
    "Aborted": ("retry {id}",),
    "Rejected": ("retry {id}",),
    "Failed": ("retry {id}",),
}
"""What a person can do about a deployment that waits or ended badly, by status."""


def short_id(deployment_id: Any) -> str:
    """The abbreviation that people type: enough of the id to be unique among what they just saw."""
    return clean(deployment_id)[:12]


def deployment_tree(
    deployment: Mapping[str, Any],
    timeline: Sequence[Mapping[str, Any]],
    notice: str = "",
    now: datetime | None = None,
    *,
    compact: bool = False,
) -> RenderableType:
    """The whole rollout as it stands, what a person must know first. `notice` is what the watcher itself has to say.

    `compact` is for low terminals: a node's hosts on its own line, only the metrics that do not pass.
    """
    tree = Tree(_header(deployment, now or datetime.now(UTC)), guide_style="dim")
    tree.add(_step(deployment))
    weights = _weights(deployment)
    if weights:
        tree.add(weights)
    _add_waiting(tree, deployment)
    _add_outcome(tree, deployment)
    _add_verdict(tree, deployment.get("verdict"), compact=compact)
    add_experiment(tree, deployment.get("experiment"), compact=compact)
    _add_nodes(tree, deployment, compact=compact)
    if timeline:
        branch = tree.add(Text("timeline", style="bold"))
        for event in timeline:
            line = Text(f"{clock(event.get('at'))} ", style="dim", no_wrap=True, overflow="ellipsis")
            line.append(clean(event.get("message")), style="none")
            branch.add(line)
    if notice:
        return Group(tree, Text(notice, style="yellow"))
    return tree


def status_line(deployment: Mapping[str, Any]) -> str:
    """Everything that matters in one plain line, for logs and pipes."""
    parts = [
        f"{clean(deployment.get('plugin'))} {clean(deployment.get('fromVersion') or '(nothing)')}"
        f" -> {clean(deployment.get('toVersion'))} in {clean(deployment.get('environment'))}",
        clean(deployment.get("status")),
    ]
    if deployment.get("stepCount"):
        title = clean(deployment.get("stepTitle"))
        parts.append(f"step {deployment.get('stepNumber', 0)}/{deployment['stepCount']} {title}".rstrip())
    weights = _weights(deployment)
    if weights:
        parts.append(weights.plain)
    verdict = deployment.get("verdict")
    if isinstance(verdict, Mapping):
        parts.append(f"verdict {clean(verdict.get('outcome'))} (n {verdict.get('candidateRequests', 0)})")
    if phrase := experiment_phrase(deployment.get("experiment")):
        parts.append(phrase)
    if deployment.get("waitingFor"):
        parts.append(f"waits for {clean(deployment['waitingFor'])}")
    if deployment.get("outcomeReason"):
        parts.append(clean(deployment["outcomeReason"]))
    return " | ".join(parts)


def commands_for(deployment: Mapping[str, Any]) -> list[str]:
    """The commands that make sense for a deployment that waits for a person."""
    name = short_id(deployment.get("deploymentId"))
    return [f"hotswap {line.format(id=name)}" for line in COMMANDS.get(str(deployment.get("status")), ())]


def expected_line(step: Mapping[str, Any]) -> str:
    """What an observation of a plan finds, and within how many requests of the new version; empty for other steps."""
    found = [
        f"{clean(one.get('regression'))} within {one['requests']:,}"
        for one in step.get("expectedSample") or ()
        if isinstance(one.get("requests"), int)
    ]
    return f"finds {', '.join(found)} requests of the new version" if found else ""


def own_metric_line(metric: Mapping[str, Any]) -> str:
    """An own metric of a plan: whom is asked what, and what is good."""
    asked = clean(metric.get("query") or metric.get("url"))
    compared = "" if metric.get("compare") == "absolute" else f" ({clean(metric.get('compare'))})"
    good = f"{clean(metric.get('operator'))} {figure(metric.get('threshold'))}{compared}"
    return f"{clean(metric.get('name'))}: good is {good}, {clean(metric.get('provider'))} {asked}".rstrip()


def _header(deployment: Mapping[str, Any], now: datetime) -> Text:
    text = Text()
    text.append(clean(deployment.get("plugin")), style="bold")
    text.append(f" {clean(deployment.get('fromVersion') or '(nothing)')} → ")
    text.append(clean(deployment.get("toVersion")), style="bold")
    text.append(f"   {clean(deployment.get('environment'))} · {clean(deployment.get('strategy'))} · ")
    text.append_text(styled(deployment.get("status")))
    started = instant(deployment.get("startedAt") or deployment.get("requestedAt"))
    ended = instant(deployment.get("finishedAt"))
    if started:
        text.append(f"   {duration(((ended or now) - started).total_seconds())}", style="dim")
    text.append(f"   {short_id(deployment.get('deploymentId'))}", style="dim")
    return text


def _step(deployment: Mapping[str, Any]) -> Text:
    number, count = int(deployment.get("stepNumber") or 0), int(deployment.get("stepCount") or 0)
    if not count:
        return Text("planning", style="dim")
    share = min(max(number / count, 0.0), 1.0)
    style = STATUS_STYLE.get(str(deployment.get("status")), "cyan")
    text = Text(f"step {number}/{count} ")
    text.append("█" * round(BAR * share), style=style)
    text.append("░" * (BAR - round(BAR * share)), style="dim")
    text.append(f" {clean(deployment.get('stepTitle'))}", style="bold")
    return text


def _weights(deployment: Mapping[str, Any]) -> Text | None:
    """Set weight (of tenants; of nodes when they are switched one by one) and what requests really did."""
    if not deployment.get("stepNumber"):
        return None
    ordered = deployment.get("setWeightPercent") or 0
    what = "nodes" if deployment.get("strategy") == "Rolling" else "tenants"
    text = Text(f"{what}: set {ordered} %")
    verdict = deployment.get("verdict")
    actual = verdict.get("actualWeightPercent") if isinstance(verdict, Mapping) else None
    if isinstance(actual, int | float):
        text.append(f", actual {actual:.1f} % of requests")
    elif ordered:
        text.append(", actual not measured")
    return text


def _add_nodes(tree: Tree, deployment: Mapping[str, Any], *, compact: bool) -> None:
    nodes = deployment.get("nodes") or ()
    if not nodes:
        return
    branch = tree.add(Text("nodes", style="bold"))
    for node in nodes:
        line = Text(f"{clean(node.get('nodeId'))} ")
        line.append_text(styled(node.get("state")))
        line.append(f" · generation {node.get('generation', 0)}", style="dim")
        if node.get("detail"):
            line.append(f" · {clean(node['detail'])}", style="yellow")
        twig = branch.add(line)
        for host in node.get("hosts") or ():
            if compact:
                line.append(f" · {clean(host.get('version'))} ").append_text(_health(host))
            else:
                twig.add(_host(host))


def _host(host: Mapping[str, Any]) -> Text:
    text = Text(f"{clean(host.get('version'))} ")
    text.append_text(styled(host.get("state")))
    text.append(" · ").append_text(_health(host))
    if host.get("pid"):
        text.append(f" · pid {host['pid']}", style="dim")
    if host.get("memoryBytes"):
        text.append(f" · {size(host['memoryBytes'])}", style="dim")
    if host.get("inFlight"):
        text.append(f" · {host['inFlight']} in flight", style="dim")
    text.append(f" · sandbox {clean(host.get('sandboxTier'))}", style="dim")
    if host.get("lastError"):
        text.append(f" · {clean(host['lastError'])}", style="red")
    return text


def _health(host: Mapping[str, Any]) -> Text:
    """Health in a word, from what the host reports of itself."""
    failures, crashes = int(host.get("probeFailures") or 0), int(host.get("crashes") or 0)
    if host.get("state") == "Crashed":
        return Text("unhealthy", style="red")
    if failures:
        return Text(f"{failures} probes failed in a row", style="red")
    if crashes:
        return Text(f"crashed {crashes}×", style="yellow")
    if host.get("state") == "Evicted":
        return Text("loads at the next request", style="dim")
    well = host.get("state") in ("Ready", "Standby")
    return Text("healthy", style="green") if well else Text("unknown", style="dim")


def _add_verdict(tree: Tree, verdict: Any, *, compact: bool) -> None:
    if not isinstance(verdict, Mapping):
        return
    head = Text("verdict ", style="bold")
    head.append_text(styled(verdict.get("outcome")))
    head.append(
        f" · {verdict.get('candidateRequests', 0)} requests to the new version,"
        f" {verdict.get('baselineRequests', 0)} to the old",
        style="dim",
    )
    branch = tree.add(head)
    if verdict.get("reason"):
        branch.add(Text(clean(verdict["reason"])))
    metrics = [one for one in verdict.get("metrics") or () if not compact or one.get("outcome") != "Pass"]
    if metrics:
        branch.add(_metrics(metrics))
    for metric in metrics:
        if metric.get("provider"):
            branch.add(_own_metric(metric))
    silent = verdict.get("nodesSilent") or ()
    if silent:
        branch.add(Text(f"no figures from {', '.join(clean(node) for node in silent)}", style="yellow"))


def _metrics(metrics: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("metric", "outcome", "n", "estimate", "interval", "threshold", "baseline"):
        table.add_column(column, justify="left" if column in ("metric", "outcome") else "right", no_wrap=True)
    for metric in metrics:
        lower, upper = metric.get("lower"), metric.get("upper")
        table.add_row(
            clean(metric.get("metric")),
            styled(metric.get("outcome")),
            str(metric.get("n", 0)),
            figure(metric.get("estimate")),
            f"{figure(lower)} … {figure(upper)}" if lower is not None or upper is not None else "–",
            figure(metric.get("threshold")),
            _baseline(metric),
        )
    return table


def _own_metric(metric: Mapping[str, Any]) -> Text:
    """What was asked of whom and what came back, of a metric that the rollout brought itself."""
    text = Text(f"{clean(metric.get('metric'))} · {clean(metric['provider'])}", style="dim")
    if metric.get("query"):
        text.append(f" · {clean(metric['query'])}")
    if metric.get("raw"):
        text.append(f" → {clean(metric['raw'])}")
    return text


def _baseline(metric: Mapping[str, Any]) -> str:
    if metric.get("baselineEstimate") is None:
        return "–"
    return f"{figure(metric['baselineEstimate'])} (n {metric.get('baselineN') or 0})"


def figure(value: Any) -> str:
    """A figure of a verdict with as many digits as it deserves."""
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4g}"


def _add_waiting(tree: Tree, deployment: Mapping[str, Any]) -> None:
    commands = commands_for(deployment)
    if not deployment.get("waitingFor") and not commands:
        return
    line = Text("waits for ", style="bold yellow")
    line.append(clean(deployment.get("waitingFor") or "a person"))
    branch = tree.add(line)
    for command in commands:
        branch.add(Text(command, style="bold"))


def _add_outcome(tree: Tree, deployment: Mapping[str, Any]) -> None:
    if deployment.get("outcomeReason"):
        line = Text("because ", style="bold")
        line.append(clean(deployment["outcomeReason"]))
        tree.add(line)
    if deployment.get("whatToDo"):
        line = Text("what to do ", style="bold red")
        line.append(clean(deployment["whatToDo"]))
        tree.add(line)
