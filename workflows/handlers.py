"""The doors of a deployment: for each row of commands.TABLE one signal (Web UI, `temporal workflow signal`) and one
update with a validator (the facade), under the same name, and the three queries.

A mixin of every workflow type that holds a DeploymentState. Handlers only change the state; the machinery reacts to it.
Neighbours: workflows.commands says what makes sense and what changes, workflows.messages names the messages.
"""

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.errors import as_application_error
    from hotswap.domain.deployment import DeploymentProgress, TimelineEvent
    from hotswap.domain.plan import Plan
    from workflows import commands
    from workflows.commands import Rule
    from workflows.messages import Command, CommandResult, WorkflowNames
    from workflows.state import DeploymentState


class CommandHandlers:
    _state: DeploymentState

    @workflow.query(name=WorkflowNames.STATUS)
    def status(self) -> DeploymentProgress:
        return self._state.progress()

    @workflow.query(name=WorkflowNames.PLAN)
    def plan(self) -> Plan | None:
        return self._state.planned.plan if self._state.planned else None

    @workflow.query(name=WorkflowNames.TIMELINE)
    def timeline(self) -> list[TimelineEvent]:
        return self._state.timeline

    @workflow.signal(name=WorkflowNames.FREEZES_CHANGED)
    def freezes_changed(self) -> None:
        """From the facade, when a freeze was made or lifted: a held rollout asks again at once (workflows.freezes)."""
        self._state.freeze_news += 1

    def _obey(self, name: str, rule: Rule[Any], command: Command) -> CommandResult:
        message = rule.change(self._state, command, workflow.now())
        return CommandResult(
            deployment_id=self._state.request.deployment_id, status=self._state.status, message=message
        )

    def _obey_signal(self, name: str, rule: Rule[Any], command: Command) -> None:
        """A signal cannot be refused, so one that makes no sense is noted and ignored."""
        if fault := rule.check(self._state, command):
            message = f"'{name}' by {command.by} was ignored: {fault.message}"
            self._state.note(workflow.now(), "ignored", message, {"by": command.by})
        else:
            self._obey(name, rule, command)


def _open_doors(name: str, rule: Rule[Any]) -> None:
    """Add the update, its validator and the signal of one command to the mixin."""

    def obey(self: CommandHandlers, command: Command) -> CommandResult:
        return self._obey(name, rule, command)

    def check(self: CommandHandlers, command: Command) -> None:
        if fault := rule.check(self._state, command):
            raise as_application_error(fault)

    def signal(self: CommandHandlers, command: Command) -> None:
        self._obey_signal(name, rule, command)

    for handler in (obey, check, signal):
        # Temporal decodes the argument as this type, and takes `self` for an argument too when it is annotated.
        handler.__annotations__["command"] = rule.takes
        del handler.__annotations__["self"]
    update = workflow.update(name=name)(obey)
    update.validator(check)
    attribute = name.replace("-", "_")
    setattr(CommandHandlers, attribute, update)
    setattr(CommandHandlers, f"signal_{attribute}", workflow.signal(name=name)(signal))


for _name, _rule in commands.TABLE.items():
    _open_doors(_name, _rule)
