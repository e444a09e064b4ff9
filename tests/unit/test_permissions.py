"""Which hosts a manifest's permissions grant, and which permissions are refused before anything is stored."""

import json

import pytest

from hotswap.domain.errors import ManifestInvalid
from hotswap.domain.manifest import Manifest, parse_manifest
from hotswap.domain.permissions import network_grants, normal_host


def manifest(*permissions: str, **more: object) -> Manifest:
    document = {
        "name": "p",
        "version": "1.0.0",
        "entryPoint": "p:P",
        "methods": [{"name": "m"}],
        "requiredPermissions": permissions,
        **more,
    }
    return parse_manifest(json.dumps(document).encode(), "plugin.json")


@pytest.mark.parametrize(
    ("permission", "covered", "not_covered"),
    [
        (
            "network.http:api.example.com",
            [("api.example.com", 443), ("api.example.com", 80)],
            [
                ("api.example.com", 8443),
                ("example.com", 443),
                ("x.api.example.com", 443),
                ("api.example.com.evil", 443),
            ],
        ),
        ("network.http:API.Example.com.:8443", [("api.example.com", 8443)], [("api.example.com", 443)]),
        (
            "network.http:*.example.com",
            [("a.example.com", 443), ("a.b.example.com", 80)],
            [("example.com", 443), ("evilexample.com", 443), ("a.example.com", 22)],
        ),
        ("network.http:bücher.example", [("xn--bcher-kva.example", 443)], [("bucher.example", 443)]),
        ("network.http:backend", [("backend", 80)], [("backend.example.com", 80)]),
    ],
)
def test_a_grant_covers_its_host_and_ports_alone(
    permission: str, covered: list[tuple[str, int]], not_covered: list[tuple[str, int]]
) -> None:
    (grant,) = network_grants(manifest(permission, "secrets.read", "subprocess").required_permissions)
    assert all(grant.covers(*target) for target in covered)
    assert not any(grant.covers(*target) for target in not_covered)


@pytest.mark.parametrize(
    ("permission", "why"),
    [
        ("network.http", "is not a host name"),
        ("network.http:", "is not a host name"),
        ("network.http:10.0.0.1", "is an address"),
        ("network.http:127.1", "is an address"),
        ("network.http:0x7f000001", "is an address"),
        ("network.http:[::1]:80", "is not a port"),
        ("network.http:::1", "is not a port"),
        ("network.http:*", "is not a host name"),
        ("network.http:*.com", "whole top-level domain"),
        ("network.http:*.*.example.com", "is not a host name"),
        ("network.http:api.*.com", "is not a host name"),
        ("network.http:api.example.com:0", "is not a port"),
        ("network.http:api.example.com:65536", "is not a port"),
        ("network.http:api.example.com:99999999999999999999", "is not a port"),
        ("network.http:api.example.com:http", "is not a port"),
        ("network.http:https://api.example.com", "is not a port"),
        ("network.http:api.example.com/path", "is not a host name"),
        ("network.http:a..b", "is not a host name"),
        ("network.http:-a.example", "is not a host name"),
        ("network.http:" + "a." * 130 + "com", "is not a host name"),
        ("network.http: api.example.com", "is not a host name"),
        ("Network.HTTP:api.example.com", "grants nothing"),
        ("network.tcp:api.example.com", "grants nothing"),
        ("network", "grants nothing"),
    ],
)
def test_a_network_permission_that_cannot_be_read_is_named_with_its_remedy(permission: str, why: str) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        manifest("secrets.read", permission)
    (fault,) = caught.value.faults
    assert fault.field == "requiredPermissions.1"
    assert why in fault.message
    assert "network.http:api.example.com" in fault.message


def test_other_permissions_stay_free_words() -> None:
    assert manifest("secrets.read", "subprocess", "whatever:x").required_permissions[2] == "whatever:x"


@pytest.mark.parametrize("text", ["\ud800", "ａ.example" + "\u2024", "a" * 64 + ".example", "\0", "a_b.example"])
def test_what_is_no_host_name_has_no_normal_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        normal_host(text)


def test_configuration_defaults_are_those_of_the_top_level() -> None:
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "default": "eu"},
            "nothing": {"default": None},
            "required": {"type": "string"},
            "deep": {"type": "object", "properties": {"inner": {"default": 1}}},
            "any": True,
        },
    }
    assert manifest(configurationSchema=schema).config_defaults() == {"region": "eu", "nothing": None}
    assert manifest().config_defaults() == {}
