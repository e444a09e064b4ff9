"""Takes known secrets out of text on its way to a log or an error. A guard against accidents, not against a plugin that
means to leak: who can read a secret can also spell it backwards.

Pure. hotswap.runtime.tenant_ledger adds what it hands out; handle and output clean what comes back. The cost of a text does
not grow with the number of secrets (0.1 us a character with 10,000 of them): texts are looked up by their first characters.
"""

import json
from collections.abc import Iterable

SHORTEST = 4
"""Characters. A shorter value would mask half of every log, and protects nothing."""
MAX_VALUES = 20_000
"""Spellings kept; past it the oldest go, which belong to tenants not seen for long."""
MASK = "***"


class SecretMask:
    """Replaces every known value, each of its lines, and their JSON and repr spellings; a text that ends within one too."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self._by_start: dict[str, list[str]] = {}

    def add(self, values: Iterable[str]) -> None:
        for value in values:
            for spelling in _spellings(value):
                if spelling not in self._known:
                    self._known[spelling] = None
                    alike = self._by_start.setdefault(spelling[:SHORTEST], [])
                    alike.append(spelling)
                    alike.sort(key=len, reverse=True)
        while len(self._known) > MAX_VALUES:
            self._forget(next(iter(self._known)))

    def clean(self, text: str) -> str:
        if not self._known:
            return text
        by_start = self._by_start
        parts = []
        at = kept = 0
        end = len(text) - SHORTEST + 1
        while at < end:
            length = 0
            for secret in by_start.get(text[at : at + SHORTEST], ()):
                # The second: the text was cut, as long ones are, in the middle of it.
                if text.startswith(secret, at) or (len(text) - at < len(secret) and secret.startswith(text[at:])):
                    length = min(len(secret), len(text) - at)
                    break
            if length:
                parts += [text[kept:at], MASK]
                kept = at = at + length
            else:
                at += 1
        return "".join([*parts, text[kept:]]) if parts else text

    def _forget(self, spelling: str) -> None:
        del self._known[spelling]
        alike = self._by_start[spelling[:SHORTEST]]
        alike.remove(spelling)
        if not alike:
            del self._by_start[spelling[:SHORTEST]]


def _spellings(value: str) -> set[str]:
    whole = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    return {line for spelling in whole for line in (spelling, *spelling.splitlines()) if len(line) >= SHORTEST}
