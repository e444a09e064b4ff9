"""The payload codec: what is encrypted cannot be read, moved or changed; keys rotate; what was in the clear still reads."""

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes

from hotswap.config_temporal import TemporalSettings
from hotswap.payloads import ENCODING, KEY_ID, EncryptingCodec, PayloadUnreadable, key_id
from hotswap.temporal import data_converter

OLD, NEW = b"o" * 32, b"n" * 32
PLAIN = Payload(metadata={"encoding": b"json/plain", "messageType": b"DeploymentRequest"}, data=b'{"reason":"secret"}')


async def test_nothing_of_a_payload_shows_and_the_same_one_never_looks_the_same() -> None:
    codec = EncryptingCodec([NEW])
    one, two = await codec.encode([PLAIN, PLAIN])
    for payload in (one, two):
        assert payload.metadata["encoding"] == ENCODING
        assert set(payload.metadata) == {"encoding", KEY_ID}
        for word in (b"secret", b"DeploymentRequest", b"json/plain"):
            assert word not in payload.SerializeToString()
    assert one.data != two.data
    assert await codec.decode([one, two]) == [PLAIN, PLAIN]


async def test_a_new_key_in_front_encrypts_and_the_old_one_still_opens() -> None:
    (before,) = await EncryptingCodec([OLD]).encode([PLAIN])
    both = EncryptingCodec([NEW, OLD])
    (after,) = await both.encode([PLAIN])
    assert after.metadata[KEY_ID].decode() == key_id(NEW)
    assert await both.decode([before, PLAIN, after]) == [PLAIN] * 3
    with pytest.raises(PayloadUnreadable, match=f"{key_id(OLD)}.*HOTSWAP_TEMPORAL__PAYLOAD_KEYS"):
        await EncryptingCodec([NEW]).decode([before])


@pytest.mark.parametrize("at", [0, 16, 28, -1])
async def test_one_changed_bit_anywhere_is_refused(at: int) -> None:
    codec = EncryptingCodec([NEW])
    (payload,) = await codec.encode([PLAIN])
    changed = bytearray(payload.data)
    changed[at] ^= 1
    for data in (bytes(changed), payload.data[:20], b""):
        with pytest.raises(PayloadUnreadable, match="was changed or cut"):
            await codec.decode([Payload(metadata=payload.metadata, data=data)])


async def test_a_payload_cannot_pass_for_one_of_another_key() -> None:
    codec = EncryptingCodec([NEW, OLD])
    (payload,) = await codec.encode([PLAIN])
    moved = Payload(metadata={"encoding": ENCODING, KEY_ID: key_id(OLD).encode()}, data=payload.data)
    with pytest.raises(PayloadUnreadable):
        await codec.decode([moved])


def test_faults_are_encoded_where_payloads_are_encrypted_and_nothing_changes_without_keys() -> None:
    assert data_converter(TemporalSettings()) is pydantic_data_converter
    encrypted = data_converter(TemporalSettings(payload_keys=NEW.hex()))
    assert isinstance(encrypted.payload_codec, EncryptingCodec)
    assert encrypted.failure_converter_class is DefaultFailureConverterWithEncodedAttributes
    assert encrypted.payload_converter_class is pydantic_data_converter.payload_converter_class
