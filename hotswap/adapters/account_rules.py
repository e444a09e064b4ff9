"""What both adapters of hotswap.ports.accounts share: limits of what is stored, and how a refusal reads. Pure."""

from datetime import timedelta

from hotswap.adapters.record_rules import HASH, NAME
from hotswap.domain.errors import Conflict, NotFound

USER_LIMITS = {"displayName": NAME}
SESSION_LIMITS = {"sessionId": NAME}
SERVICE_LIMITS = {"tokenId": NAME, "prefix": 20, "createdBy": NAME, "revokedBy": NAME}
TENANT_LIMITS = {"tokenId": NAME, "createdBy": NAME, "revokedBy": NAME}
KEY_LIMITS = {"kid": HASH, "public": HASH, "sealedBy": HASH}

SESSION_KEPT = timedelta(days=1)
"""How long an expired session stays before a login sweeps it away: longer than any access token that names it."""

SESSION_SWEEP = 100
"""Expired sessions that one login sweeps away at most: it bounds what a person pays for tidiness."""


def user_taken(name: str) -> Conflict:
    return Conflict(f"user '{name}' is there already; choose another name, or change that one")


def user_missing(name: str) -> NotFound:
    return NotFound(f"user '{name}' is not known")


def service_token_taken(name: str) -> Conflict:
    return Conflict(f"a service token '{name}' is there already; revoke it first, or choose another name")


def service_token_missing(token_id: str) -> NotFound:
    return NotFound(f"service token '{token_id}' is not known")


def tenant_token_missing(token_id: str) -> NotFound:
    return NotFound(f"token '{token_id}' of this tenant is not known")
