"""What both adapters of hotswap.ports.tenants share: limits of what is stored, and how a refusal reads. Pure."""

from hotswap.adapters.record_rules import NAME
from hotswap.domain.errors import Conflict, NotFound
from hotswap.domain.tenants import TenantPlugin

CHANGE_LIMITS = {"changeId": NAME, "by": NAME, "traceId": NAME}
KEY_LIMITS = {"keyId": NAME, "wrappedBy": NAME}
CHECK_LIMITS = {"checkId": NAME}


def key_taken(key_id: str) -> Conflict:
    return Conflict(f"data key {key_id} is there already")


def not_held(row: TenantPlugin) -> NotFound:
    return NotFound(f"tenant {row.tenant} has no row for {row.plugin}; hold it first")
