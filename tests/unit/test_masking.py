"""Secrets that are known never pass into a log line or an error, in the spellings that accidents give them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.runtime import masking
from hotswap.runtime.masking import SHORTEST, SecretMask

KEY = 'pa"ss\\wörd\n-----BEGIN KEY-----\nMIIEvg'


def masked(*secrets: str) -> SecretMask:
    mask = SecretMask()
    mask.add(secrets)
    return mask


@pytest.mark.parametrize(
    "text", [f"key={KEY}!", json.dumps({"key": KEY}), json.dumps(KEY, ensure_ascii=False), repr(KEY), "x MIIEvg y"]
)
def test_a_secret_is_masked_in_every_usual_spelling(text: str) -> None:
    clean = masked(KEY).clean(text)
    assert "MIIEvg" not in clean
    assert 'pa"ss' not in clean
    assert masking.MASK in clean


def test_of_secrets_that_begin_alike_the_longest_is_taken() -> None:
    assert masked("token", "token-of-acme").clean("a token-of-acme b token c") == "a *** b *** c"


def test_a_text_that_was_cut_within_a_secret_hides_its_beginning() -> None:
    assert masked("s3cret-of-acme").clean("refused: s3cret-o") == "refused: ***"


def test_a_value_too_short_to_protect_anything_masks_nothing() -> None:
    assert masked("", "1", "abc").clean("abc 1") == "abc 1"


@given(st.lists(st.text(min_size=SHORTEST, max_size=12), min_size=1, max_size=8), st.lists(st.text(max_size=8)))
def test_no_known_secret_is_left(secrets: list[str], rest: list[str]) -> None:
    text = "".join(piece + secret for piece, secret in zip(rest, secrets * 8, strict=False))
    pieces = masked(*secrets).clean(text).split(masking.MASK)
    assert not [secret for secret in secrets for piece in pieces if secret in piece]


@given(st.text())
def test_what_holds_no_secret_is_untouched(text: str) -> None:
    assert masked("\ue000" * 5).clean(text) == text


def test_what_is_kept_is_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MAX_VALUES", 10)
    mask = masked(*(f"secret-{number:02}" for number in range(25)))
    assert mask.clean("secret-14 secret-15 secret-24") == "secret-14 *** ***"
    assert len(mask._known) == 10
    assert sum(map(len, mask._by_start.values())) == 10
