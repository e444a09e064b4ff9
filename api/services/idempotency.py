"""The Idempotency-Key of a POST: the first answer is kept in the transaction that made it, a repeat gets it again.

Neighbours: api.dependencies reads the header, the services call `first_answer` before and `keep` with their work.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from hotswap.domain.errors import Conflict
from hotswap.ports.records import StoredAnswer, UnitOfWork

M = TypeVar("M", bound=BaseModel)


def fingerprint(content: BaseModel | dict[str, Any]) -> str:
    """SHA-256 over canonical JSON: the same request whatever its spacing or key order."""
    data = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Once:
    """One user's key for one operation; without a key both methods do nothing."""

    user: str
    operation: str
    key: str | None

    async def first_answer(self, uow: UnitOfWork, request_hash: str, shape: type[M]) -> M | None:
        """The answer this key got the first time. Raises Conflict when the key came with another request."""
        if self.key is None:
            return None
        stored = await uow.idempotency.find(self.user, self.operation, self.key)
        if stored is None:
            return None
        if stored.request_hash != request_hash:
            raise Conflict(
                f"Idempotency-Key '{self.key}' was used for another {self.operation} request in the last 24 hours; "
                "use a new key for a new request"
            )
        return shape.model_validate(stored.body)

    async def keep(self, uow: UnitOfWork, request_hash: str, status_code: int, answer: BaseModel) -> None:
        if self.key is None:
            return
        body = answer.model_dump(mode="json", by_alias=True)
        stored = StoredAnswer(request_hash=request_hash, status_code=status_code, body=body)
        await uow.idempotency.keep(self.user, self.operation, self.key, stored)
