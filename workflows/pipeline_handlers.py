"""The doors of a pipeline: for each row of pipeline_commands.TABLE one signal and one update with a validator, under the
same name, the query `status`, and what its stages' deployments tell it.

A mixin of workflows.pipeline. Handlers only change the state; the workflow reacts to it.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.errors import as_application_error
    from hotswap.domain.pipeline import PipelineProgress
    from workflows import pipeline_commands
    from workflows.messages import Command, WorkflowNames
    from workflows.pipeline_commands import PipelineRule
    from workflows.pipeline_messages import STAGE_PROGRESS, PipelineCommandResult
    from workflows.pipeline_state import PipelineState, StageTold


class PipelineHandlers:
    _state: PipelineState
    _called: bool

    @workflow.query(name=WorkflowNames.STATUS)
    def status(self) -> PipelineProgress:
        return self._state.progress()

    @workflow.signal(name=WorkflowNames.YOUR_TURN)
    def your_turn(self) -> None:
        """The deployment that held the place of the present stage is over."""
        self._called = True

    @workflow.signal(name=STAGE_PROGRESS)
    def stage_progress(self, told: StageTold) -> None:
        """The running stage's deployment changed. One that is over has nothing to say any more."""
        state = self._state
        if told.deployment_id != state.running:
            return
        state.update(deployment_status=told.status, step_title=told.step_title)
        state.wait_for(f"{state.entry.environment}: {told.waiting_for}" if told.waiting_for else "")

    def _obey(self, rule: PipelineRule, command: Command) -> PipelineCommandResult:
        message = rule.change(self._state, command, workflow.now())
        return PipelineCommandResult(
            pipeline_id=self._state.request.pipeline_id, status=self._state.status, message=message
        )


def _open_doors(name: str, rule: PipelineRule) -> None:
    def obey(self: PipelineHandlers, command: Command) -> PipelineCommandResult:
        return self._obey(rule, command)

    def check(self: PipelineHandlers, command: Command) -> None:
        if fault := rule.check(self._state, command):
            raise as_application_error(fault)

    def signal(self: PipelineHandlers, command: Command) -> None:
        if fault := rule.check(self._state, command):  # a signal cannot be refused: it is noted and ignored
            message = f"'{name}' by {command.by} was ignored: {fault.message}"
            self._state.note(workflow.now(), "ignored", message, {"by": command.by})
        else:
            self._obey(rule, command)

    for handler in (obey, check, signal):
        del handler.__annotations__["self"]  # Temporal would take it for an argument
    update = workflow.update(name=name)(obey)
    update.validator(check)
    setattr(PipelineHandlers, name, update)
    setattr(PipelineHandlers, f"signal_{name}", workflow.signal(name=name)(signal))


for _name, _rule in pipeline_commands.TABLE.items():
    _open_doors(_name, _rule)
