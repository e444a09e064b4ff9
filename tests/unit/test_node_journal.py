"""Notes of a router process: what it did not live to tell is read from them, once."""

import os
from collections.abc import Iterator

import pytest

from hotswap.analysis.histogram import bucket_of
from hotswap.node import journal
from hotswap.node.figures import Result, Slot
from hotswap.node.journal import Counted, Journal, JournalMemory, name_of


@pytest.fixture
def memory() -> Iterator[JournalMemory]:
    made = JournalMemory()
    yield made
    made.close()


def test_what_was_not_told_is_read_and_what_was_told_is_not_read_again(memory: JournalMemory) -> None:
    written = Journal(memory.descriptor)
    one, two = Counted("invoice", "1.0.0", written), Counted("invoice", "2.0.0", written)
    one.record(0.0, 0.010, Result.OK)
    assert one.taken() is not None
    told = written.written
    one.record(0.0, 0.020, Result.OK)
    one.record(0.0, 0.020, Result.OK)
    one.record(0.0, 0.030, Result.ERROR)
    two.record(0.0, 0.040, Result.FAILURE)
    two.reject()
    twenty, thirty = bucket_of(20.0), bucket_of(30.0)
    assert memory.since(told) == {
        name_of("invoice", "1.0.0"): (Slot(0.0, 3, 1, 0, {twenty: 2, thirty: 1}), 0),
        name_of("invoice", "2.0.0"): (Slot(0.0, 1, 1, 1, {}), 1),
    }
    assert memory.since(written.written) == {}


def test_notes_say_what_is_told(memory: JournalMemory) -> None:
    counted = Counted("invoice", "1.0.0", Journal(memory.descriptor))
    for result, milliseconds in ((Result.OK, 1), (Result.OK, 5000), (Result.ERROR, 0), (Result.FAILURE, 7)):
        counted.record(0.0, milliseconds / 1000, result)
    counted.reject()
    [(noted, rejected)] = memory.since(0).values()
    assert counted.taken() == {
        "requests": noted.requests,
        "errors": noted.errors,
        "failures": noted.failures,
        "rejected": rejected,
        "buckets": list(noted.buckets.items()),
    }


def test_the_latest_notes_are_kept_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch, memory: JournalMemory
) -> None:
    monkeypatch.setattr(journal, "NOTES", 4)
    counted = Counted("invoice", "1.0.0", Journal(memory.descriptor))
    for number in range(10):
        counted.record(0.0, 0.0, Result.ERROR if number == 9 else Result.OK)
    [(noted, _)] = memory.since(0).values()
    assert (noted.requests, noted.errors) == (4, 1)
    assert os.fstat(memory.descriptor).st_size > 0
