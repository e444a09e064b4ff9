"""What a plugin's method is told about its call: tenant, deadline, trace. Configuration: test_hosts_settings."""

import json
import time
from pathlib import Path

import pytest

from hotswap.runtime import protocol
from tests.integration.host_lab import SOON, Replies, launched, spec_of_source, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode()

TELLS = """
    import time
    class Plugin:
        def tell(self, parameters, context):
            return [context.traceparent, context.trace_id, context.deadline, context.seconds_left]
        async def tell_async(self, parameters, context):
            return [context.traceparent, context.trace_id, context.deadline, context.seconds_left]
        async def block(self, parameters, context):
            time.sleep(0.5)
        def __repr__(self):
            return "me"
"""


@pytest.mark.parametrize("method", ["tell", "tell_async"])
async def test_a_method_learns_the_trace_and_the_instant_after_which_nobody_waits(tmp_path: Path, method: str) -> None:
    async with launched(spec_of_source(tmp_path, TELLS)) as host:
        replies = Replies()
        before = time.monotonic()
        host.submit(method, "t", b"{}", 60.0, replies, PARENT)
        after = time.monotonic()
        traceparent, trace_id, deadline, left = json.loads((await replies.wait(1))[0].body)
        assert (traceparent, trace_id) == (PARENT.decode(), TRACE)
        assert before + 59.99 <= deadline <= after + 60.01
        assert 0 < left <= 60


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"00-zz-1-01",
        PARENT + b"-more",
        PARENT.upper(),
        b"ff" + PARENT[2:],
        PARENT.replace(TRACE.encode(), b"0" * 32),
        PARENT.replace(b"b7ad6b7169203331", b"0" * 16),
        b"\xff" * 55,
        b"\n" * 55,
        b"x" * 16_000,
    ],
)
async def test_what_is_no_trace_context_is_none(tmp_path: Path, given: bytes) -> None:
    async with launched(spec_of_source(tmp_path, TELLS)) as host:
        replies = Replies()
        host.submit("tell", "t", b"{}", 60.0, replies, given)
        assert json.loads((await replies.wait(1))[0].body)[:2] == ["", ""]


async def test_the_time_a_call_waits_in_the_channel_counts(tmp_path: Path) -> None:
    """A host that is busy reads its calls late; the deadline it tells must not move with that."""
    async with launched(spec_of_source(tmp_path, TELLS)) as host:
        replies = Replies()
        host.submit("block", "t", b"{}", 60.0, replies)
        await until(lambda: protocol.WATERMARK.unpack_from(host._watermark)[0] > 0)  # it has begun
        submitted = time.monotonic()
        host.submit("tell_async", "t", b"{}", 60.0, replies)
        deadline = json.loads((await replies.wait(2))[1].body)[2]
        assert deadline <= submitted + 60.1
        assert await host.drain(SOON)
