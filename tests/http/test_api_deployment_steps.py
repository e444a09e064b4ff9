"""The titles of all steps of a plan, those to come too, as GET /deployments/{id} tells them."""

from datetime import UTC, datetime

from hotswap.domain.deployment import TimelineEvent
from tests.http.site import API, Site

DEPLOYMENTS = f"{API}/deployments"


async def test_a_planned_deployment_tells_the_titles_of_all_its_steps(site: Site) -> None:
    await site.ship()
    deployment = (await site.deploy()).json()["deploymentId"]
    assert (await site.viewer.get(f"{DEPLOYMENTS}/{deployment}")).json()["steps"] == []
    at = datetime.now(UTC)
    queued = TimelineEvent(sequence=1, at=at, kind="queue", message="it waits for its turn")
    planned = TimelineEvent(sequence=2, at=at, kind="plan", message="2 steps", data={"steps": ["verify", "promote"]})
    await site.project(deployment, queued, planned)
    assert (await site.viewer.get(f"{DEPLOYMENTS}/{deployment}")).json()["steps"] == ["verify", "promote"]
    (listed,) = (await site.viewer.get(DEPLOYMENTS)).json()["items"]
    assert listed["steps"] == []
