"""What the demo promises, each as a line with its figure, judged from what was seen. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from hotswap.demo.report import TrafficReport, flips


@dataclass(frozen=True)
class Claim:
    """One promise. `figure` is the evidence in a few words."""

    ok: bool
    text: str
    figure: str


@dataclass(frozen=True)
class Seen:
    """Everything that the claims are judged by. Times are Unix seconds, durations seconds, None = it never happened."""

    versions: tuple[str, str, str]
    statuses: tuple[str, str, str]
    worker_pids: tuple[int, int]
    resumed_after: float | None
    canary_began: float
    bad_began: float
    bad_verdict_at: float | None
    bad_rolled_back_at: float | None
    first_step_percent: int
    traffic: TrafficReport

    @property
    def rollback_seconds(self) -> float | None:
        """From the failing verdict until every node was back on the old version."""
        if self.bad_verdict_at is None or self.bad_rolled_back_at is None:
            return None
        return max(self.bad_rolled_back_at - self.bad_verdict_at, 0.0)

    @property
    def bad_traffic_seconds(self) -> float | None:
        """From the first to the last request that the bad version served."""
        bad = self.versions[2]
        first, last = self.traffic.first_seen.get(bad), self.traffic.last_seen.get(bad)
        return None if first is None or last is None else last - first


RESUME_WITHIN = 30.0
"""Seconds. Measured 2 to 5: a new Python process, its imports, and one poll."""

ROLLBACK_WITHIN = 10.0
"""Seconds from the verdict. The specification allows 60; measured well under 1."""


def judge(seen: Seen) -> list[Claim]:
    """Every promise of the demo, kept or not."""
    first, second, bad = seen.versions
    traffic = seen.traffic
    return [
        Claim(seen.statuses[0] == "Completed", f"{first} is live after a Direct deployment", seen.statuses[0]),
        Claim(seen.statuses[1] == "Completed", f"{second} is live after an approved canary", seen.statuses[1]),
        _resumed(seen),
        Claim(
            seen.statuses[2] == "RolledBack", f"the bad {bad} was taken back without anybody's help", seen.statuses[2]
        ),
        _rolled_back(seen),
        _blast(seen),
        Claim(
            traffic.requests > 0 and not traffic.failed,
            "no request failed because of a switch, a rollback or the killed worker",
            f"{traffic.failed} of {traffic.requests:,}" + _codes(traffic),
        ),
        Claim(
            set(traffic.plugin_errors) <= {bad} and traffic.plugin_errors[bad] > 0,
            "only the bad version's own code broke requests",
            ", ".join(f"{count} by {version}" for version, count in sorted(traffic.plugin_errors.items())) or "none",
        ),
        _sticky("during the canary", traffic.sequences(seen.canary_began, seen.bad_began), (first, second)),
        _sticky("during the rollback", traffic.sequences(seen.bad_began), (second, bad, second)),
        _home(traffic, second),
    ]


def _resumed(seen: Seen) -> Claim:
    old, new = seen.worker_pids
    after = seen.resumed_after
    return Claim(
        after is not None and after <= RESUME_WITHIN and old != new,
        "the worker, killed with SIGKILL in the middle of the canary, was replaced and went on",
        "never" if after is None else f"progress after {after:.1f} s, pid {old} -> {new}",
    )


def _rolled_back(seen: Seen) -> Claim:
    took = seen.rollback_seconds
    return Claim(
        took is not None and took <= ROLLBACK_WITHIN,
        "every node was back on the old version right after the failing verdict",
        "never" if took is None else f"{took:.2f} s",
    )


def _blast(seen: Seen) -> Claim:
    bad = seen.versions[2]
    tenants = len(seen.traffic.versions)
    hit = sum(any(version == bad for version, _ in sightings) for sightings in seen.traffic.versions.values())
    # A cohort of n tenants is a draw: 10 % of 200 is 20, give or take 4.2. Five times that is never chance.
    spread = 5 * (tenants * 0.01 * seen.first_step_percent * (1 - 0.01 * seen.first_step_percent)) ** 0.5
    return Claim(
        0 < hit <= tenants * 0.01 * seen.first_step_percent + spread,
        f"the bad version never went beyond its first step of {seen.first_step_percent} %",
        f"{hit} of {tenants} tenants met it",
    )


def _sticky(when: str, sequences: dict[str, tuple[str, ...]], order: Sequence[str]) -> Claim:
    wrong = flips(sequences.values(), order)
    return Claim(
        bool(sequences) and not wrong,
        f"no tenant went back and forth {when}",
        f"{len(sequences) - len(wrong)} of {len(sequences)} went {' -> '.join(order)} at most",
    )


def _home(traffic: TrafficReport, version: str) -> Claim:
    home = sum(sightings[-1][0] == version for sightings in traffic.versions.values())
    return Claim(
        0 < home == len(traffic.versions),
        f"in the end every tenant is on {version}",
        f"{home} of {len(traffic.versions)}",
    )


def _codes(traffic: TrafficReport) -> str:
    if not traffic.failed:
        return ""
    return " (" + ", ".join(f"{code} {count}" for code, count in traffic.platform_failures.items()) + ")"
