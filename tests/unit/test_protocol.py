"""Frames survive any cutting of the stream; nothing a hostile host can send gets past the caps or raises anything else."""

import contextlib
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.runtime import protocol
from hotswap.runtime.protocol import Call, Fault, FrameDecoder, FrameError, Kind

CAP = 64
KINDS = {int(Kind.RESULT): CAP, int(Kind.ERROR): 16, int(Kind.PONG): 0}

frames = st.lists(
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda kind: st.tuples(st.integers(0, protocol.REQUEST_ID_MASK), st.just(kind), st.binary(max_size=KINDS[kind]))
    ),
    max_size=20,
)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in cuts)})
    return [stream[start:stop] for start, stop in pairwise(places)]


@given(frames, st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_survive_any_cutting(sent: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(protocol.encode(request_id, kind, payload) for request_id, kind, payload in sent)
    decoder = FrameDecoder(KINDS)
    received = [frame for chunk in cut(stream, cuts) for frame in decoder.feed(chunk)]
    assert received == sent
    assert decoder.pending == 0


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_noise_raises_a_frame_error_or_nothing_and_never_piles_up(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(KINDS)
    try:
        for chunk in chunks:
            for _, kind, payload in decoder.feed(chunk):
                assert len(payload) <= KINDS[kind]
            assert decoder.pending <= 12 + CAP
    except FrameError:
        pass


@given(st.integers(CAP + 1, 2**32 - 1))
def test_a_length_over_the_cap_is_refused_before_its_payload_comes(length: int) -> None:
    with pytest.raises(FrameError, match="at most 64"):
        FrameDecoder(KINDS).feed(protocol.HEADER.pack(length, 1, Kind.RESULT, 0))


def test_each_kind_has_its_own_cap() -> None:
    FrameDecoder(KINDS).feed(protocol.HEADER.pack(CAP, 1, Kind.RESULT, 0))
    with pytest.raises(FrameError):
        FrameDecoder(KINDS).feed(protocol.HEADER.pack(CAP, 1, Kind.ERROR, 0))
    with pytest.raises(FrameError):
        FrameDecoder(KINDS).feed(protocol.HEADER.pack(1, 1, Kind.PONG, 0))


@pytest.mark.parametrize("kind", [0, int(Kind.CALL), 99, 65535])
def test_a_kind_the_peer_may_not_send_is_refused(kind: int) -> None:
    with pytest.raises(FrameError, match=f"kind {kind}"):
        FrameDecoder(KINDS).feed(protocol.HEADER.pack(0, 1, kind, 0))


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(FrameError, match="flags"):
        FrameDecoder(KINDS).feed(protocol.HEADER.pack(0, 1, Kind.PONG, 0x8000))


names = st.text(max_size=60).filter(lambda text: len(text.encode("utf-8", "replace")) <= 255)


@given(
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.integers(0, protocol.MAX_DEADLINE_US),
    st.binary(max_size=100),
    st.binary(max_size=protocol.TRACEPARENT_BYTES),
)
def test_a_call_arrives_as_it_was_sent(method: str, tenant: str, deadline: int, body: bytes, trace: bytes) -> None:
    frame = protocol.encode_call(7, method.encode(), tenant.encode(), deadline, body, trace)
    ((request_id, kind, payload),) = FrameDecoder(protocol.node_caps()).feed(frame)
    assert (request_id, kind) == (7, Kind.CALL)
    assert protocol.decode_call(payload) == Call(method, tenant, deadline, body, trace)


@given(st.binary(max_size=64))
def test_a_broken_call_raises_a_frame_error_or_nothing(payload: bytes) -> None:
    with contextlib.suppress(FrameError):
        protocol.decode_call(payload)


@given(
    st.builds(
        Fault,
        st.text(max_size=5000),
        st.text(max_size=500),
        st.sampled_from(["", "TIMEOUT"]),
        st.booleans(),
        st.booleans(),
    )
)
def test_a_fault_arrives_bounded_and_printable(fault: Fault) -> None:
    payload = protocol.encode_fault(fault)
    assert len(payload) <= protocol.MAX_FAULT_BYTES
    arrived = protocol.decode_fault(payload)
    assert len(arrived.message) <= protocol.MAX_MESSAGE_CHARS
    assert all(c.isprintable() or c in "\n\t\ufffd" for c in arrived.message + arrived.kind)
    arrived.message.encode()  # never raises: no lone surrogate is left
    assert (arrived.limit, arrived.unknown_method, arrived.invalid) == (
        fault.limit,
        fault.unknown_method,
        fault.invalid,
    )
    if fault.message.isascii() and fault.message.isprintable() and len(fault.message) <= protocol.MAX_MESSAGE_CHARS:
        assert arrived.message == fault.message


@given(
    st.one_of(
        st.binary(max_size=100),
        st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()),
    )
)
def test_a_forged_fault_raises_a_frame_error(payload: bytes) -> None:
    with pytest.raises(FrameError):
        protocol.decode_fault(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"message": 1}',
        b'{"message": "x", "kind": null}',
        b'{"message": "x", "unknown_method": 1}',
        b'{"message": "x", "more": 1}',
        b'{"kind": "x"}',
        b"[" * 100_000,
    ],
)
def test_a_fault_with_other_fields_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        protocol.decode_fault(payload)
