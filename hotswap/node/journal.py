"""What a router process counts, also noted in memory that the node can read: of one that is killed nothing counted is lost.

The router tells what it counted a few times a second (hotswap.node.router_worker) and says how many notes that covers; when it
has died, the node reads those that it was never told of (hotswap.node.pool_figures). So each counts once, whenever it died. One
writer, read only once that has ended: no locks. A note costs 0.4 us a request.
"""

import mmap
import os
from typing import Any

from xxhash import xxh3_64_intdigest

from hotswap.analysis.histogram import bucket_of
from hotswap.node.figures import Result, Slot

NOTES = 1 << 16
"""As many as are kept: seconds of what a router can serve, while it tells four times a second. 1 MiB, touched as used."""

_WORDS = 2
_BYTES = (1 + NOTES) * _WORDS * 8
_REJECTED = len(Result)


def name_of(plugin: str, version: str) -> int:
    """What a version is called in notes."""
    return xxh3_64_intdigest(f"{plugin}\0{version}".encode())


class JournalMemory:
    """The node's side, for one router process."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("hotswap-journal", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _BYTES)

    def since(self, told: int) -> dict[int, tuple[Slot, int]]:
        """By `name_of`: what was counted after the first `told` notes, and how many requests were the callers' fault."""
        found: dict[int, tuple[Slot, int]] = {}
        with mmap.mmap(self.descriptor, _BYTES) as memory, memoryview(memory).cast("Q") as words:
            written = words[0]
            for number in range(max(told, written - NOTES), written):
                at = (1 + number % NOTES) * _WORDS
                slot, rejected = found.get(words[at], (Slot(0.0), 0))
                bucket, result = divmod(words[at + 1], _REJECTED + 1)
                if result == _REJECTED:
                    rejected += 1
                else:
                    slot.count(bucket, Result(result))
                found[words[at]] = (slot, rejected)
        return found

    def close(self) -> None:
        os.close(self.descriptor)


class Journal:
    """The router's side."""

    def __init__(self, descriptor: int) -> None:
        """The descriptor stays the caller's."""
        self._words = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")
        self.written = 0

    def note(self, name: int, result: int, bucket: int) -> None:
        at = (1 + self.written % NOTES) * _WORDS
        words = self._words
        words[at] = name
        words[at + 1] = bucket * (_REJECTED + 1) + result
        self.written += 1
        words[0] = self.written  # last: a note is whole or not there


class Counted:
    """What one version did here since the node was told last. Implements hotswap.node.serving.Counts."""

    __slots__ = ("_journal", "_name", "flood", "rejected", "slot")

    def __init__(self, plugin: str, version: str, journal: Journal) -> None:
        self._journal = journal
        self._name = name_of(plugin, version)
        self.rejected = 0
        self.slot = Slot(0.0)
        self.flood = Slot(0.0)

    def absorb(self, now: float, counted: Slot, rejected: int = 0, flood: Slot | None = None) -> None:
        """Not noted: of a router that is killed, what it held back of a busy version is lost (hotswap.node.strain)."""
        self.slot.add(counted)
        self.rejected += rejected
        if flood is not None:
            self.flood.add(flood)

    @property
    def anything(self) -> bool:
        """Whether anything was counted."""
        return bool(self.slot.requests or self.rejected or self.flood.requests or self.flood.buckets)

    def record(self, now: float, elapsed: float, result: Result) -> None:
        bucket = bucket_of(elapsed * 1000.0)
        self.slot.count(bucket, result)
        self._journal.note(self._name, result, bucket)

    def reject(self) -> None:
        self.rejected += 1
        self._journal.note(self._name, _REJECTED, 0)

    def taken(self) -> dict[str, Any] | None:
        """As JSON, and nothing is counted any more; None when nothing was."""
        if not self.anything:
            return None
        slot, rejected, flood = self.slot, self.rejected, self.flood
        self.slot, self.rejected, self.flood = Slot(0.0), 0, Slot(0.0)
        return {
            "requests": slot.requests,
            "errors": slot.errors,
            "failures": slot.failures,
            "rejected": rejected,
            "buckets": list(slot.buckets.items()),
            **({"flood": [flood.requests, list(flood.buckets.items())]} if flood.requests or flood.buckets else {}),
        }
