"""The codec server: it decrypts for Admins what HotSwap's own keys encrypted, and only the Web UI's page may ask from a browser."""

import base64
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload

from hotswap.payloads import EncryptingCodec
from tests.http.site import API, Site, error_of, fields_of

KEY, OTHER = b"k" * 32, b"o" * 32
DECODE = f"{API}/codec/decode"
UI = "http://temporal.test"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"reason":"incident 7"}')


def use_keys(site: Site, *keys: bytes) -> None:
    given = SecretStr("\n".join(key.hex() for key in keys))
    settings = site.container.settings
    temporal = settings.temporal.model_copy(update={"payload_keys": given})
    site.container.settings = settings.model_copy(update={"temporal": temporal})


async def encrypted(key: bytes = KEY) -> dict[str, Any]:
    (payload,) = await EncryptingCodec([key]).encode([PLAIN])
    return MessageToDict(payload)


async def test_an_admin_reads_what_was_encrypted_under_any_of_the_keys(site: Site) -> None:
    use_keys(site, OTHER, KEY)
    body = {"payloads": [await encrypted(), MessageToDict(PLAIN), await encrypted(OTHER)]}
    answer = await site.admin.post(DECODE, json=body, headers={"X-Namespace": "hotswap"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"payloads": [MessageToDict(PLAIN)] * 3}


async def test_a_key_that_is_not_ours_is_named_and_nothing_is_told(site: Site) -> None:
    use_keys(site, KEY)
    answer = await site.admin.post(DECODE, json={"payloads": [await encrypted(OTHER)]})
    error = error_of(answer, 400, "VALIDATION_ERROR")
    assert "HOTSWAP_TEMPORAL__PAYLOAD_KEYS" in error["message"]
    changed = await encrypted()
    raw = bytearray(base64.b64decode(changed["data"]))
    raw[-1] ^= 1
    answer = await site.admin.post(DECODE, json={"payloads": [changed | {"data": base64.b64encode(raw).decode()}]})
    assert "was changed or cut" in error_of(answer, 400, "VALIDATION_ERROR")["message"]


@pytest.mark.parametrize("wrong", [{"data": "?"}, {"metadata": {"encoding": "!"}}, {"data": "ö"}])
async def test_what_is_not_base64_is_told_by_its_place(site: Site, wrong: dict[str, Any]) -> None:
    answer = await site.admin.post(DECODE, json={"payloads": [MessageToDict(PLAIN), wrong]})
    assert "payloads[1]" in fields_of(error_of(answer, 400, "VALIDATION_ERROR"))


async def test_only_the_page_of_the_web_ui_may_ask_from_a_browser(site: Site) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-namespace"}
    preflight = await site.nobody.options(DECODE, headers={"Origin": UI, **asking})
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (204, UI)
    assert {"authorization", "x-namespace", "content-type"} <= {
        name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")
    }
    refused = await site.nobody.post(DECODE, json={"payloads": []}, headers={"Origin": UI})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == UI, "the page can read why"

    for origin in ("http://evil.test", "http://temporal.test.evil.test", "null"):
        for answer in (
            await site.nobody.options(DECODE, headers={"Origin": origin, **asking}),
            await site.admin.post(DECODE, json={"payloads": []}, headers={"Origin": origin}),
        ):
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"
    elsewhere = await site.admin.get(f"{API}/plugins", headers={"Origin": UI})
    assert "Access-Control-Allow-Origin" not in elsewhere.headers, "the rest of the api is for no page but its own"


async def test_an_answer_is_what_the_protocol_says_to_the_letter(site: Site) -> None:
    use_keys(site, KEY)
    body = {"payloads": [await encrypted()], "later": 1}
    answer = await site.admin.post(DECODE, json=body)
    assert set(answer.json()) == {"payloads"}
    assert set(answer.json()["payloads"][0]) == {"metadata", "data"}
