"""Checks of what HotSwap stands on: PostgreSQL and its schema, Redis, the object store, Temporal, and their clocks."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from hotswap import builds, temporal
from hotswap.doctor.report import Finding, Severity
from hotswap.doctor.site import Site
from hotswap.domain.errors import Unavailable
from migrations import runner

OLDEST_POSTGRES = 15

SHORTEST_RETENTION = timedelta(days=7)
"""Closed rollouts are looked at in the Web UI for about a week after they went wrong."""

POLLED_WITHIN = timedelta(seconds=90)
"""A long poll lasts a minute: a worker that has not polled for longer is gone."""

RENEWED_BEFORE = timedelta(days=14)
"""A certificate is renewed by then, and everything started again."""

SKEW = timedelta(seconds=2)

WHOLE_SECONDS = timedelta(seconds=1)
"""How exactly an HTTP Date header tells the time."""


async def postgres(site: Site) -> Sequence[Finding]:
    try:
        async with site.database.inspection() as looking:
            version = await looking.server_version()
    except Unavailable as fault:
        return [
            Finding(
                severity=Severity.CRITICAL,
                what=fault.message,
                why="the registry, the routes and the record are there; nodes serve on, nothing else works",
                remedy="start the server, or correct HOTSWAP_POSTGRES__URL",
            )
        ]
    if version >= OLDEST_POSTGRES:
        return []
    return [
        Finding(
            severity=Severity.WARNING,
            what=f"PostgreSQL is version {version}",
            why=f"HotSwap is made for and tested with {OLDEST_POSTGRES} and later",
            remedy=f"upgrade the server to {OLDEST_POSTGRES} or later",
        )
    ]


async def schema(site: Site) -> Sequence[Finding]:
    async with site.database.inspection() as looking:
        found = await looking.schema_revision()
    head = runner.head()
    if found == head:
        return []
    if found is not None and not runner.knows(found):
        return [
            Finding(
                severity=Severity.WARNING,
                what=f"the schema is at {found}, which this release ({head}) does not know: a newer release made it",
                why="this release works on the next one's schema, so this is right in the middle of an upgrade only",
                remedy="finish the upgrade: bring every process to the newer release (docs/upgrade.md)",
            )
        ]
    return [
        Finding(
            severity=Severity.CRITICAL,
            what=f"the schema is at {found or 'no revision at all'}, this release needs {head}",
            why="code that meets an older schema answers with errors",
            remedy="run `python -m migrations upgrade` with this release (in Kubernetes: the job hotswap-migrate)",
        )
    ]


async def redis(site: Site) -> Sequence[Finding]:
    try:
        await site.events.ready()
    except Unavailable as fault:
        return [
            Finding(
                severity=Severity.WARNING,
                what=fault.message,
                why="rate limits are counted by each api for itself, and watchers look once a second; nothing is lost",
                remedy="start the server, or correct HOTSWAP_REDIS__URL",
            )
        ]
    return []


async def object_store(site: Site) -> Sequence[Finding]:
    bucket = site.settings.minio.bucket
    try:
        exists = await site.bucket.exists()
    except Unavailable as fault:
        return [
            Finding(
                severity=Severity.CRITICAL,
                what=fault.message,
                why="no upload, no trial and no load of a version that a node has not cached",
                remedy="start it, or correct HOTSWAP_MINIO__ENDPOINT, __TLS, __ACCESS_KEY and __SECRET_KEY",
            )
        ]
    if not exists:
        return [
            Finding(
                severity=Severity.CRITICAL,
                what=f"the bucket '{bucket}' does not exist at {site.settings.minio.endpoint}",
                why="every artifact is kept there",
                remedy=f"create '{bucket}' with versioning, restore it (docs/backup.md), or correct HOTSWAP_MINIO__BUCKET",
            )
        ]
    if await site.bucket.versioned():
        return []
    return [
        Finding(
            severity=Severity.WARNING,
            what=f"the bucket '{bucket}' keeps no versions of its objects",
            why="an artifact that somebody overwrites or deletes is gone for good",
            remedy=f"switch versioning on for '{bucket}' (S3: PutBucketVersioning, Status=Enabled)",
        )
    ]


async def temporal_server(site: Site) -> Sequence[Finding]:
    settings = site.settings.temporal
    try:
        client = await site.temporal()
        told = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=settings.namespace))
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=settings.namespace)
        )
    except (Unavailable, RPCError) as fault:
        return [
            Finding(
                severity=Severity.CRITICAL,
                what=f"namespace '{settings.namespace}' at {settings.address} cannot be used: {_said(fault)}",
                why="rollouts stand still and none can be started; nodes serve on",
                remedy="start it, or correct HOTSWAP_TEMPORAL__*; a new namespace: `python -m worker --set-up`; "
                "docs/runbooks/temporal-down.md",
            )
        ]
    findings = _certificate(site)
    missing = [key.name for key in temporal.SEARCH_ATTRIBUTES if key.name not in listed.custom_attributes]
    if missing:
        findings.append(
            Finding(
                severity=Severity.CRITICAL,
                what=f"namespace '{settings.namespace}' has no search attributes {', '.join(missing)}",
                why="a rollout that sets one stands still, and lists by it stay empty",
                remedy="run `python -m worker --set-up`",
            )
        )
    kept = told.config.workflow_execution_retention_ttl
    if isinstance(kept, Duration) and kept.ToTimedelta() < SHORTEST_RETENTION:
        findings.append(
            Finding(
                severity=Severity.WARNING,
                what=f"namespace '{settings.namespace}' forgets closed rollouts after {_days(kept.ToTimedelta())}",
                why="what went wrong last week can then not be looked at in the Web UI (PostgreSQL keeps the record)",
                remedy="run `python -m worker --set-up --retention-days 30`",
            )
        )
    return findings


def _certificate(site: Site) -> list[Finding]:
    ends = site.settings.temporal.certificate_ends()
    if ends is None or ends - site.clock() > RENEWED_BEFORE:
        return []
    return [
        Finding(
            severity=Severity.WARNING,
            what=f"our client certificate for Temporal runs out at {ends:%Y-%m-%d %H:%M} UTC",
            why="from then on api, worker and nodes cannot connect; rollouts stand still",
            remedy="renew HOTSWAP_TEMPORAL__TLS_CLIENT_CERT and __TLS_CLIENT_KEY, then start api, worker and nodes "
            "again, one after another: they read them when they start",
        )
    ]


async def worker(site: Site) -> Sequence[Finding]:
    """Somebody must poll the control plane's queue, as a build that new rollouts start on."""
    settings = site.settings.temporal
    client = await site.temporal()
    try:
        polled = await _polled_at(client, settings.task_queue)
    except RPCError as fault:
        raise Unavailable(f"Temporal does not tell who polls {settings.task_queue}: {_said(fault)}") from fault
    if polled is None or site.clock() - polled > POLLED_WITHIN:
        return [
            Finding(
                severity=Severity.CRITICAL,
                what=f"no worker polls the task queue '{settings.task_queue}' in namespace '{settings.namespace}'",
                why="every rollout stands still",
                remedy="start `python -m worker`, or correct HOTSWAP_TEMPORAL__TASK_QUEUE; docs/runbooks/worker-down.md",
            )
        ]
    known = await builds.list_builds(client, settings)
    if known and not any(build.status == "current" for build in known):
        return [
            Finding(
                severity=Severity.CRITICAL,
                what=f"no build of '{settings.deployment_name}' is current: {', '.join(b.build_id for b in known[:3])}",
                why="workers with builds get nothing to do until one is: no new rollout moves",
                remedy="run `python -m worker --set-current` with the release that shall take new rollouts",
            )
        ]
    return []


async def clocks(site: Site) -> Sequence[Finding]:
    before = site.clock()
    async with site.database.inspection() as looking:
        database = await looking.now()
    findings = _skew("PostgreSQL", database, before, site)
    before = site.clock()
    store = await site.bucket.now()
    if store is not None:
        findings += _skew("the object store", store + WHOLE_SECONDS / 2, before, site, WHOLE_SECONDS / 2)
    return findings


def _skew(whose: str, told: datetime, before: datetime, site: Site, coarse: timedelta = timedelta(0)) -> list[Finding]:
    """`told` at some moment since `before`; a slow answer widens what it may mean instead of making a skew."""
    asking = (site.clock() - before) / 2
    off = told - (before + asking)
    if abs(off) - asking - coarse <= SKEW:
        return []
    tolerated = site.settings.auth.clock_skew
    ahead = "ahead of" if off > timedelta(0) else "behind"
    return [
        Finding(
            severity=Severity.CRITICAL if abs(off) > tolerated else Severity.WARNING,
            what=f"the clock of {whose} is {abs(off.total_seconds()):.1f} s {ahead} this machine's",
            why=f"tokens tolerate {tolerated.total_seconds():g} s, presigned uploads and freezes go by these clocks",
            remedy="run a time service (chrony, systemd-timesyncd) on this machine and on the server's",
        )
    ]


async def _polled_at(client: Client, queue: str) -> datetime | None:
    told = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    return max((poller.last_access_time.ToDatetime(tzinfo=UTC) for poller in told.pollers), default=None)


def _said(fault: Unavailable | RPCError) -> str:
    return fault.message[:300]


def _days(span: timedelta) -> str:
    days = span / timedelta(days=1)
    return f"{days:g} day{'' if days == 1 else 's'}"
