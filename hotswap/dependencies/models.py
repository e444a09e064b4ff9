"""The words of dependency checks: releases, what serves, problems, the way out. Pure facts.

Neighbours: check finds problems, resolve finds the way out, tree draws; hotswap.ports.dependencies brings the facts.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import Field

from hotswap.domain.base import Model, PluginName
from hotswap.domain.errors import DependencyConflict, FieldFault
from hotswap.domain.manifest import Dependency, SemVer


class Release(Model):
    """A version of a plugin with what it needs."""

    plugin: PluginName
    version: SemVer
    dependencies: tuple[Dependency, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.plugin} {self.version}"

    @property
    def plugin_dependencies(self) -> tuple[Dependency, ...]:
        return tuple(one for one in self.dependencies if one.type == "Plugin")


Serving = Mapping[str, Sequence[Release]]
"""What has tenants in an environment: by plugin the stable version, and beside it a candidate that is being rolled out."""


class ProblemKind(StrEnum):
    MISSING = "Missing"  # nothing serves what is needed
    UNSATISFIED = "Unsatisfied"  # another version serves than is needed
    CONFLICT = "Conflict"  # something serves that was ruled out
    DEPENDENT = "Dependent"  # what serves already would break
    UNREADABLE = "Unreadable"  # a constraint of an old version that cannot be read


class Problem(Model):
    """One thing that does not fit. `chain` leads from what was asked about to what is in the way."""

    kind: ProblemKind
    chain: tuple[str, ...]
    message: str


class WayOut(Model):
    """`steps` to deploy first, in this order, each of them possible when its turn comes; or why there are none."""

    steps: tuple[Release, ...] = ()
    why_not: str = ""

    @property
    def suggestion(self) -> str:
        if not self.steps:
            return self.why_not
        return f"deploy {', then '.join(step.name for step in self.steps)} first"


class Verdict(Model):
    """The answer about one version in one environment."""

    problems: tuple[Problem, ...] = ()
    way_out: WayOut = Field(default_factory=WayOut)

    def refusal(self, release: Release, environment: str) -> DependencyConflict:
        """What to say to who wants it deployed. Only for a verdict with problems."""
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        chain = " -> ".join(first.chain)
        said = f"{release.name} does not fit {environment}: {first.message}{more}. Chain: {chain}"
        if suggestion := self.way_out.suggestion:
            said = f"{said}. To do: {suggestion}"
        faults = [FieldFault("version", f"{one.message} [{' -> '.join(one.chain)}]") for one in self.problems]
        return DependencyConflict(said, faults[:20])
