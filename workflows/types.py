"""The deployment types beside Direct and Canary (workflows.deployment): a name each, so that the Web UI can filter by it.

The machinery is the same for all; what differs is the plan (hotswap.strategies).
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest
    from workflows.deployment import DeploymentMachine
    from workflows.state import DeploymentState


@workflow.defn(name="RollingDeployment")
class RollingDeployment(DeploymentMachine):
    """Node by node, each batch healthy and watched before the next."""

    @workflow.init
    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        super().__init__(request, carried)

    @workflow.run
    async def run(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> DeploymentProgress:
        return await self.execute()


@workflow.defn(name="BlueGreenDeployment")
class BlueGreenDeployment(DeploymentMachine):
    """The idle colour is warmed and tested, takes all tenants, and the old one stays loaded to go back to."""

    @workflow.init
    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        super().__init__(request, carried)

    @workflow.run
    async def run(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> DeploymentProgress:
        return await self.execute()


@workflow.defn(name="ABTestDeployment")
class ABTestDeployment(DeploymentMachine):
    """Both versions serve their own tenants until the evidence says which is better."""

    @workflow.init
    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        super().__init__(request, carried)

    @workflow.run
    async def run(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> DeploymentProgress:
        return await self.execute()
