"""The demo's last page: claims, figures, addresses. Neighbours: claims judges, story collects."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from hotswap.cli.output import duration
from hotswap.demo.claims import Claim, Seen


def web_ui_url(info: dict[str, Any], environment: str, plugin: str) -> str:
    """Temporal's Web UI, filtered to the deployments of one plugin in one environment."""
    query = f'HotSwapEnvironment="{environment}" AND HotSwapPlugin="{plugin}"'
    namespace = quote(str(info.get("namespace", "default")), safe="")
    return f"{info['temporalUiUrl']}/namespaces/{namespace}/workflows?query={quote(query, safe='')}"


def claim_lines(claims: Sequence[Claim]) -> list[str]:
    """One line a claim: ok or FAILED, the claim, its figure."""
    return [f"{'ok    ' if claim.ok else 'FAILED'} {claim.text} ({claim.figure})" for claim in claims]


def verdict_line(claims: Sequence[Claim]) -> str:
    """What the claims come to, in a sentence."""
    broken = sum(not claim.ok for claim in claims)
    if broken:
        return f"{broken} of {len(claims)} claims did NOT hold (exit code 1)"
    return f"all {len(claims)} claims held (exit code 0)"


def figure_lines(seen: Seen, took: float) -> list[str]:
    """The figures that the issue asks for."""
    traffic = seen.traffic
    lasted = max(traffic.finished_at - traffic.started_at, 0.001)
    bad = seen.versions[2]
    served = ", ".join(f"{version}: {count:,}" for version, count in sorted(traffic.by_version.items()))
    rows = [
        ("requests", f"{traffic.requests:,} of {len(traffic.versions)} tenants in {lasted:.0f} s ({served})"),
        ("rate", f"{traffic.requests / lasted:.0f} a second"),
        ("latency", f"p50 {traffic.percentile(0.5):.1f} ms, p99 {traffic.percentile(0.99):.1f} ms"),
        ("failed by the platform", str(traffic.failed)),
        ("broken by the bad version", f"{traffic.plugin_errors[bad]} (counted apart)"),
        ("asked another node", str(traffic.retried_connects)),
        ("worker killed, progress after", _seconds(seen.resumed_after)),
        ("verdict to rolled back", _seconds(seen.rollback_seconds)),
        ("first to last bad request", _seconds(seen.bad_traffic_seconds)),
        ("the whole story", duration(took)),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def address_lines(info: dict[str, Any], environment: str, plugin: str) -> list[str]:
    """Where to look further while the stack is up."""
    return [
        f"Temporal Web UI  {web_ui_url(info, environment, plugin)}",
        f"API docs         {info['docsUrl']}",
    ]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
