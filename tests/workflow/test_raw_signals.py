"""What people send with Temporal's own tools is not checked by the facade; no text of theirs may hold a deployment up."""

from temporalio.client import WorkflowExecutionStatus

from hotswap.domain.deployment import Environment, Role
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.world import World, direct, until
from workflows.messages import ApproveCommand, WorkflowNames


async def test_a_nul_character_in_a_signal_does_not_keep_the_run_open(world: World) -> None:
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, Environment.STAGING))
        await uow.commit()
    async with world.working():
        handle = await world.start(world.request(direct(), environment=Environment.STAGING))
        await until(handle, lambda progress: progress.status is DeploymentStatus.AWAITING_APPROVAL)
        await handle.signal(
            WorkflowNames.APPROVE, ApproveCommand(by="eve\0", roles=(Role.APPROVER,), reason="fine\0by me")
        )
        done = await handle.result()
        assert done.status is DeploymentStatus.COMPLETED
        assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED
    async with world.records.unit_of_work() as uow:
        row = await uow.deployments.get(done.deployment_id)
    assert row.progress.status is DeploymentStatus.COMPLETED
    assert [(given.approver, given.comment) for given in row.progress.approvals] == [("eve\ufffd", "fine\ufffdby me")]
