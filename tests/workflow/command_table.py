"""The table status x command of docs/commands.md, made by asking workflows.commands itself.

`python -m tests.workflow.command_table` writes it; tests/workflow/test_command_table.py sees that it was written.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.planning import Planned
from hotswap.domain.deployment import DeploymentRequest, DirectConfig, Environment, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.plan import AwaitApproval, Plan, RetireVersion
from hotswap.domain.routes import ArtifactRef, RouteState
from workflows import commands
from workflows.state import DeploymentState, Watch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
BEGIN, END = "<!-- made by python -m tests.workflow.command_table -->\n", "<!-- end -->\n"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def subject(status: DeploymentStatus) -> DeploymentState:
    """A deployment in that status; one that is in progress or paused is observing."""
    ref = ArtifactRef(plugin="p", version="1.0.0", digest="a" * 64, size_bytes=1)
    plan = Plan(
        plugin="p",
        environment="Staging",
        strategy="Direct",
        target=ref,
        previous=None,
        cohort_seed="s",
        steps=(
            AwaitApproval(required=1, require_admin=False, expires_after=timedelta(hours=48)),
            RetireVersion(drain_grace=timedelta(seconds=1)),
        ),
    )
    request = DeploymentRequest(
        deployment_id="dep_1",
        plugin="p",
        version="1.0.0",
        environment=Environment.STAGING,
        config=DirectConfig(),
        initiated_by="dana",
        requested_at=NOW,
    )
    made = DeploymentState(
        request=request, planned=Planned(plan=plan, previous_state=RouteState(), generation=0), status=status
    )
    if status in (DeploymentStatus.IN_PROGRESS, DeploymentStatus.PAUSED):
        made.watch = Watch(since=NOW, remaining=timedelta(minutes=1))
    made.pause_wanted = status is DeploymentStatus.PAUSED
    return made


def answer(status: DeploymentStatus, name: str) -> str:
    """What an Admin who did not start it is answered."""
    rule, state = commands.TABLE[name], subject(status)
    order = rule.takes(by="ada", roles=(Role.ADMIN,), reason="because")
    if rule.check(state, order) is not None:
        return "–"
    return str(rule.change(state, order, NOW))


def table() -> str:
    names = list(commands.TABLE)
    statuses = [status for status in DeploymentStatus if any(answer(status, name) != "–" for name in names)]
    lines = ["| | " + " | ".join(statuses) + " |", "|---" * (len(statuses) + 1) + "|"]
    for name in names:
        lines.append(f"| `{name}` | " + " | ".join(answer(status, name) for status in statuses) + " |")
    refused = ", ".join(status for status in DeploymentStatus if status not in statuses)
    return "\n".join([*lines, "", f"In {refused} every command is refused (409), saying how it ended.", ""])


def written(page: str) -> str:
    """The page with today's table."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
