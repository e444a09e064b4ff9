"""What both adapters of the audit's chain and of notifications share: limits of what is stored, how a refusal reads. Pure."""

from hotswap.adapters.record_rules import HASH, NAME
from hotswap.domain.errors import Conflict, NotFound

CHECKPOINT_LIMITS = {"createdBy": NAME, "hash": HASH, "previousSignature": HASH, "keyId": 16, "signature": HASH}
NOTICE_LIMITS = {"eventId": NAME, "plugin": NAME, "onlyRule": 63}
DELIVERY_LIMITS = {"deliveryId": NAME, "eventId": NAME, "ruleId": 63}
FILTER_LIMITS = {"entity": NAME, "entityType": 100, "eventType": 100, "user": NAME}

MOST_UNSEALED = 1_000


def not_covered(position: int) -> Conflict:
    return Conflict(f"entries up to position {position} may go only behind a checkpoint that covers them")


def checkpoint_taken() -> Conflict:
    return Conflict("another checkpoint was made in this moment; look at it, then repeat if another is needed")


def notice_missing(event_id: str) -> NotFound:
    return NotFound(f"notice '{event_id}' is not known (notices are forgotten after a while)")


def rule_missing(rule_id: str) -> NotFound:
    return NotFound(f"notification rule '{rule_id}' does not exist")


def delivery_missing(delivery_id: str) -> NotFound:
    return NotFound(f"delivery '{delivery_id}' is not known (deliveries are forgotten after a while)")
