"""One call in a process of its own: what it answers, which limit it hit, what it printed; and nothing is left behind."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.config import SandboxSettings
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HostFailed, SandboxUnavailable
from hotswap.domain.ids import artifact_key
from hotswap.domain.manifest import Resources
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.sandbox import MAX_LOG_BYTES, MAX_OUTPUT_BYTES
from hotswap.node.bundles import BundleCache
from hotswap.ports.sandbox import CallReport, SandboxCall
from hotswap.runtime import calls
from hotswap.runtime.bundle import digest_file
from hotswap.runtime.calls import SandboxedCalls, kept_json
from tests.integration.host_lab import children_of, until
from tests.integration.test_trial import archive

PATIENCE = timedelta(seconds=60)
SMALL = Resources(memory_mb=128, cpu_seconds=1)


class Lab:
    """Calls of small plugins, and what they leave on disk."""

    def __init__(self, folder: Path, settings: SandboxSettings) -> None:
        self.folder = folder
        self.store = MemoryArtifactStore()
        self.bundles = BundleCache(self.store, folder / "bundles", 1_000_000, settings, 4096)
        self.calls = SandboxedCalls(settings, self.bundles)

    async def ship(self, source: str, **manifest: Any) -> ArtifactRef:
        path = archive(self.folder, source, **manifest)
        digest = digest_file(path)
        await self.store.put(artifact_key("tried", digest), path, digest)
        return ArtifactRef(plugin="tried", version="1.2.3", digest=digest, size_bytes=path.stat().st_size)

    async def call(self, source: str | ArtifactRef, **more: Any) -> CallReport:
        given: dict[str, Any] = {
            "environment": Environment.DEVELOPMENT,
            "resources": SMALL,
            "method": "run",
            "tenant": "acme",
            "parameters": '{"a": 1}',
            "timeout": PATIENCE,
            **more,
        }
        ref = await self.ship(source) if isinstance(source, str) else source
        return await self.calls.call(SandboxCall(ref=ref, **given))

    def hosts(self) -> set[int]:
        zygote = self.calls._launcher.zygote_pid
        return children_of(zygote) if zygote else set()  # a cancel while it starts ends it


@pytest_asyncio.fixture(loop_scope="session")
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, SandboxSettings())
    yield made
    assert made.hosts() == set()
    zygote = made.calls._launcher.zygote_pid
    await made.calls.close()
    assert zygote not in children_of(os.getpid())


def plugin(*lines: str, top: str = "") -> str:
    body = "\n".join(f"        {line}" for line in lines)
    return f"{top}\nclass Plugin:\n    def run(self, p, c):\n{body}\n"


async def test_a_call_answers_with_its_result_its_log_and_its_cost(lab: Lab) -> None:
    source = plugin("print('got', p)", "return {'p': p, 'tenant': c.tenant, 'plugin': c.plugin}", top="print('hello')")
    report = await lab.call(source)
    assert report.succeeded
    assert json.loads(report.output or "") == {"p": {"a": 1}, "tenant": "acme", "plugin": "tried"}
    assert report.logs == "hello\ngot {'a': 1}\n"
    assert (report.limit, report.error_kind, report.sandbox_tier) == ("", "", lab.calls.sandbox_tier)
    assert 0 < report.load_ms <= report.duration_ms
    assert report.peak_memory_bytes > 1_000_000


async def test_a_call_is_told_the_configuration_that_came_with_it_and_no_other(lab: Lab) -> None:
    ref = await lab.ship(
        plugin("return dict(c.config)"),
        configurationSchema={"type": "object", "properties": {"rate": {"type": "integer", "default": 3}}},
    )
    told = await asyncio.gather(
        *(lab.call(ref, configuration={"rate": n, "more": "é\u0000"}) for n in (1, 2)), lab.call(ref)
    )
    assert [json.loads(one.output or one.reason) for one in told] == [
        {"rate": 1, "more": "é\u0000"},
        {"rate": 2, "more": "é\u0000"},
        {"rate": 3},
    ]


async def test_nothing_of_one_call_is_seen_by_the_next(lab: Lab) -> None:
    source = "import os\nseen = []\n" + plugin("seen.append(1)", "return [len(seen), os.getpid()]")
    ref = await lab.ship(source)
    reports = await asyncio.gather(*(lab.call(ref) for _ in range(4)))
    answers = [json.loads(report.output or "") for report in reports]
    assert [count for count, _ in answers] == [1] * 4
    assert len({pid for _, pid in answers}) == 4


@pytest.mark.parametrize(
    ("source", "more", "limit", "says"),
    [
        (plugin("import time", "time.sleep(60)"), {"timeout": timedelta(seconds=1)}, "TIMEOUT", ""),
        ("import time\ntime.sleep(60)\n" + plugin("return 1"), {"timeout": timedelta(seconds=1)}, "TIMEOUT", "load"),
        (plugin("while True: pass"), {}, "CPU_LIMIT", "1 CPU seconds"),
        (plugin("return len(bytearray(2**30))"), {}, "MEMORY_LIMIT", "memory"),
        (plugin("return [open(__file__) for _ in range(99)] and 1"), {}, "FILE_LIMIT", "open files"),
        (plugin(f"return 'x' * {MAX_OUTPUT_BYTES}"), {}, "REPLY_TOO_LARGE", f"at most {MAX_OUTPUT_BYTES}"),
        (plugin("return object()"), {}, "BAD_REPLY", "not JSON"),
        (plugin("return '\\ud800'"), {}, "BAD_REPLY", "surrogate"),
        (plugin("x = []", "for _ in range(70): x = [x]", "return x"), {}, "BAD_REPLY", "64 levels"),
        ("import nowhere\n" + plugin("return 1"), {}, "LOAD_FAILED", "nowhere"),
        (plugin("import os", "os._exit(9)"), {}, "DIED", "code 9"),
        (plugin("raise KeyError('x')"), {}, "", "raised KeyError"),
        (plugin("open('/etc/passwd')"), {}, "", "raised PermissionError"),
        (plugin("return 1"), {"method": "walk"}, "", "no method 'walk'"),
    ],
)
async def test_a_failure_names_its_limit_and_leaves_no_process(
    lab: Lab, source: str, more: dict[str, Any], limit: str, says: str
) -> None:
    report = await lab.call("import sys; print('begun', file=sys.stderr)\n" + source, **more)
    assert not report.succeeded
    assert (report.limit, report.output) == (limit, None)
    assert says in report.reason
    assert report.logs.startswith("begun\n")
    await until(lambda: not lab.hosts())


async def test_a_flood_of_output_is_cut_named_and_fails_nobody(lab: Lab) -> None:
    report = await lab.call(plugin("for _ in range(9000): print('x' * 99)", "return 1"))
    assert (report.succeeded, report.limit) == (True, "OUTPUT_LIMIT")
    assert len(report.logs.encode()) <= MAX_LOG_BYTES
    logs = calls.Logs()
    for _ in range(100):
        logs.hear("é" * 1000)
    assert len(logs.text.encode()) <= MAX_LOG_BYTES
    assert logs.text.endswith(f"\n{calls.DROPPED}\n")


async def test_a_host_that_names_a_limit_of_its_own_is_not_believed() -> None:
    assert calls.known("TIMEOUT") == "TIMEOUT"
    assert calls.known("FREE_LUNCH") == "BAD_REPLY"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"a": "\\u0000\xc3\xa9"}', '{"a":"\\u0000é"}'),
        (b"[1.50, 1e3, null]", "[1.5,1000.0,null]"),
        (b"NaN", None),
        (b"1e999", None),
        (b"[" * 5000, None),
        (b"1" * 5000, None),
        (b"\xff", None),
    ],
)
def test_what_is_kept_of_a_result_any_reader_of_json_can_read(body: bytes, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(HostFailed) as refused:
            kept_json(body)
        assert refused.value.limit == "BAD_REPLY"
    else:
        assert kept_json(body) == kept


async def test_a_cancelled_call_leaves_no_process(lab: Lab) -> None:
    source = plugin("import time", "time.sleep(60)")
    await lab.call(plugin("return 1"))
    for _ in range(3):
        call = asyncio.create_task(lab.call(source))
        await until(lambda: bool(lab.hosts()))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not lab.hosts())


async def test_unpacked_bundles_are_shared_and_go_when_nobody_used_them_for_long(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await lab.ship(plugin("return 1")), await lab.ship(plugin("return 2"))
    for ref in (first, second, first):
        await lab.calls.prepare(ref)
        assert (await lab.call(ref)).succeeded
    place = lab.folder / "bundles"
    assert {path.name for path in place.iterdir()} == {first.digest, second.digest}
    long_ago = (place / first.digest).stat().st_mtime - calls.UNUSED_AFTER.total_seconds() - 60
    os.utime(place / first.digest, (long_ago, long_ago))
    monkeypatch.setattr(calls, "PRUNE_EVERY", 0.0)
    await lab.calls.prepare(second)
    assert [path.name for path in place.iterdir()] == [second.digest]


async def test_tier_strong_serves_calls_as_well_and_says_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path, SandboxSettings(tier="strong"))
    source = plugin("print('here')", "return p")
    done = await lab.call(source)
    full = await lab.call(plugin("return len(bytearray(2**30))"))
    call = asyncio.create_task(lab.call(plugin("import time", "time.sleep(60)")))
    await until(lambda: bool(lab.hosts()))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not lab.hosts())
    await lab.calls.close()
    assert (done.succeeded, done.sandbox_tier, done.logs) == (True, "strong", "here\n")
    assert (full.limit, full.sandbox_tier) == ("MEMORY_LIMIT", "strong")
    assert done.peak_memory_bytes > 1_000_000


async def test_production_is_never_unisolated(tmp_path: Path) -> None:
    lab = Lab(tmp_path, SandboxSettings(tier="none"))
    with pytest.raises(SandboxUnavailable, match="never accepted for Production"):
        await lab.call(plugin("return 1"), environment=Environment.PRODUCTION)
    await lab.calls.close()
