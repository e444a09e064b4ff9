"""The zygote's rehearsal leaves nothing behind that its hosts would inherit."""

import threading
from pathlib import Path

from hotswap.runtime import rehearsal, seccomp


def test_leaves_no_descriptor_and_no_thread() -> None:
    rehearsal.rehearse("x86_64")  # what is imported or cached for good is, now
    before = set(Path("/proc/self/fd").iterdir()), threading.active_count()

    rehearsal.rehearse("x86_64")

    assert (set(Path("/proc/self/fd").iterdir()), threading.active_count()) == before


def test_prepares_the_filter_that_strong_hosts_use() -> None:
    seccomp.assemble.cache_clear()

    rehearsal.rehearse("x86_64")

    seccomp.assemble("x86_64", 2, scratch=False, receives_on=None)
    assert seccomp.assemble.cache_info().hits == 1


def test_goes_the_way_of_a_call(monkeypatch) -> None:
    echoed: list[object] = []
    echo = rehearsal._Echo.echo

    async def noted(self: rehearsal._Echo, parameters: dict[str, object], context: object) -> object:
        echoed.append(parameters)
        return await echo(self, parameters, context)

    monkeypatch.setattr(rehearsal._Echo, "echo", noted)

    rehearsal.rehearse()

    assert echoed == [{"lines": [1, "a"]}] * rehearsal._CALLS
