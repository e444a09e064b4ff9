"""Decrypts payloads for people who look at a workflow: Temporal's codec protocol, as the Web UI and its CLI speak it."""

import base64
from collections.abc import Sequence

from temporalio.api.common.v1 import Payload

from api.schemas.payloads import PayloadJson
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.payloads import EncryptingCodec, PayloadUnreadable


async def decode(settings: TemporalSettings, payloads: Sequence[PayloadJson]) -> list[PayloadJson]:
    """In order; what is not encrypted comes back as it is. Raises InvalidInput naming the payload."""
    keys = settings.payload_key_bytes()
    given = [_payload(number, one) for number, one in enumerate(payloads)]
    try:
        done = await EncryptingCodec(keys).decode(given) if keys else given
    except PayloadUnreadable as fault:  # what was sent is not ours: sending it again does not help
        raise InvalidInput(fault.message) from fault
    return [
        PayloadJson(
            metadata={name: base64.b64encode(value).decode() for name, value in payload.metadata.items()},
            data=base64.b64encode(payload.data).decode(),
        )
        for payload in done
    ]


def _payload(number: int, given: PayloadJson) -> Payload:
    try:
        metadata = {name: base64.b64decode(value, validate=True) for name, value in given.metadata.items()}
        return Payload(metadata=metadata, data=base64.b64decode(given.data, validate=True))
    except ValueError:  # not base64, or text that is not even ASCII
        raise InvalidInput(
            f"payload {number} is not base64",
            [FieldFault(f"payloads[{number}]", "metadata's values and data are base64, as in protobuf's JSON")],
        ) from None
