"""From a plugin's stdout and stderr to the node's log: lines and records whole, bounded, clean of control and of secrets."""

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.log_fields import bound_log_fields, log_fields
from hotswap.runtime import output
from hotswap.runtime.masking import SecretMask
from hotswap.runtime.output import MAX_LINE_CHARS, PluginOutput
from hotswap_plugin.context import Context
from hotswap_plugin.logs import line_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
CALL = Context("acme", "made", "1.0.0", 0.0, f"00-{TRACE}-{SPAN}-01".encode())


@dataclass
class Pipe:
    writer: int
    output: PluginOutput
    mask: SecretMask
    caplog: pytest.LogCaptureFixture

    def write(self, *parts: bytes) -> list[logging.LogRecord]:
        """What is logged of the parts, each read apart from the others."""
        for part in parts:
            os.write(self.writer, part)
            self.output._read()
        self.output.close()
        return self.caplog.records


@pytest.fixture
async def pipe(caplog: pytest.LogCaptureFixture) -> Iterator[Pipe]:  # type: ignore[misc]
    caplog.set_level(logging.DEBUG, logger="hotswap.plugin")
    reader, writer = os.pipe2(os.O_NONBLOCK)
    mask = SecretMask()
    made = PluginOutput(reader, "made", "1.0.0", asyncio.get_running_loop(), mask)
    yield Pipe(writer, made, mask, caplog)
    os.close(writer)
    made.close()


def record(message: str, level: int = logging.ERROR, **more: object) -> logging.LogRecord:
    return logging.LogRecord("billing", level, "f.py", 1, message, None, more.get("exc_info"))  # type: ignore[arg-type]


async def test_a_record_keeps_its_level_tenant_and_trace(pipe: Pipe) -> None:
    line = line_of(record("no money\nat all"), CALL).encode()
    (logged,) = pipe.write(line[:30], line[30:] + b"\n")
    facts = {name: logged.__dict__.get(name) for name in ("plugin", "version", "tenant", "trace_id", "span_id")}
    assert facts == {"plugin": "made", "version": "1.0.0", "tenant": "acme", "trace_id": TRACE, "span_id": SPAN}
    assert (logged.levelname, logged.getMessage()) == ("ERROR", "billing: no money\nat all")


@pytest.mark.parametrize(
    "forged",
    [
        '{"hotswap.log":"ERROR"}',
        '{"hotswap.log":"FATAL","message":"x"}',
        '{"hotswap.log":["ERROR"],"message":"x"}',
        '{"hotswap.log":"ERROR","message":"x"',
        '{"hotswap.log":' + "[" * 5000,
    ],
)
async def test_what_only_begins_like_a_record_is_a_line(pipe: Pipe, forged: str) -> None:
    (logged,) = pipe.write(forged.encode() + b"\n")
    assert (logged.levelname, logged.getMessage()) == ("INFO", forged[:MAX_LINE_CHARS])


async def test_forged_facts_are_left_out_and_the_nodes_own_stay(pipe: Pipe) -> None:
    fields = {"hotswap.log": "INFO", "message": "x", "tenant": "a\nb", "trace_id": "../..", "plugin": "another"}
    (logged,) = pipe.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")
    assert logged.__dict__["plugin"] == "made"
    assert not {"tenant", "trace_id"} & logged.__dict__.keys()


async def test_a_long_line_is_one_entry_and_what_follows_it_another(pipe: Pipe) -> None:
    logged = pipe.write(b"x" * 9000, b"x" * 9000, b"tail\nnext\n")
    assert [entry.getMessage() for entry in logged] == ["x" * MAX_LINE_CHARS, "next"]


async def test_a_secret_across_reads_and_cuts_is_masked(pipe: Pipe) -> None:
    pipe.mask.add(["s3cret-of-acme"])
    cut = b"y" * (MAX_LINE_CHARS - 5) + b"s3cret-of-acme\n"
    logged = pipe.write(b"key s3cret", b"-of-acme end\n", cut, b"z" * 8190 + b"s3cret-of", b"-acme\n")
    assert logged[0].getMessage() == "key *** end"
    assert "s3c" not in "".join(entry.getMessage() for entry in logged)
    assert "acme" not in "".join(entry.getMessage() for entry in logged)


@given(st.text(), st.text(min_size=1), st.booleans())
def test_a_record_is_one_line_below_what_a_pipe_takes_whole(message: str, error: str, failed: bool) -> None:
    exc_info = None
    if failed:
        try:
            raise ValueError(error * 500)
        except ValueError as fault:
            exc_info = (ValueError, fault, fault.__traceback__)
    line = line_of(record(message * 300, exc_info=exc_info), CALL)
    assert len(line.encode("utf-8", "replace")) <= 4000
    assert "\n" not in line
    taken = output._record(line.encode("utf-8", "replace"))
    assert taken is not None
    assert taken[1:] == (logging.ERROR, {"tenant": "acme", "trace_id": TRACE, "span_id": SPAN})


async def test_what_a_plugin_writes_bears_nothing_of_the_order_that_loaded_it() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    heard: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    def told(line: str) -> None:
        heard.set_result(dict(bound_log_fields()))

    with log_fields(deployment="dep_1"):
        made = PluginOutput(reader, "made", "1.0.0", asyncio.get_running_loop(), told=told)
        os.write(writer, b"hello\n")
        assert await asyncio.wait_for(heard, 60) == {}
    os.close(writer)
    made.close()
