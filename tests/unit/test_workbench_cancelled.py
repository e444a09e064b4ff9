"""Who is cancelled while a plugin is unpacked leaves no folder, and learns of the cancel, not of a folder that was not empty."""

import asyncio
import tempfile
import threading
from pathlib import Path

import pytest

from hotswap.runtime import workbench
from hotswap.runtime.workbench import Given, open_workbench


async def test_a_cancel_waits_for_the_thread_that_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacking, go_on, wrote = threading.Event(), threading.Event(), threading.Event()

    def unpack(source: Path, scratch: Path) -> None:
        unpacking.set()
        go_on.wait(10)
        (scratch / "late.py").write_text("", encoding="ascii")
        wrote.set()
        raise AssertionError("nobody asks what came of it")

    monkeypatch.setattr(workbench, "_unpack", unpack)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def use() -> None:
        async with open_workbench(tmp_path / "plugin", Given()):
            pytest.fail("it was never unpacked")

    using = asyncio.create_task(use())
    assert await asyncio.to_thread(unpacking.wait, 10)
    using.cancel()
    await asyncio.sleep(0.05)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert wrote.is_set()
    assert list(tmp_path.iterdir()) == []
