"""What the OpenAPI document says beyond types: what a command needs, and that a tagged union needs its tag.

tests/http/test_api_fuzz.py holds every answer to the document and every documented request to the api.
"""

from typing import Any

from fastapi import FastAPI

REASON_REQUIRED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["reason"],
                    "properties": {"reason": {"type": "string", "minLength": 1, "pattern": r"\S"}},
                }
            }
        },
    }
}
"""`openapi_extra` of a command without which nobody could tell later why. Services refuse with words of their own."""


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` tell the whole."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            _require_tags(plain())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _require_tags(document: dict[str, Any]) -> None:
    """A discriminator's property has a default in Python, so pydantic calls it optional; on the wire it is not."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name, tag in list(_tags(document)):
        schema = schemas[name]
        if tag not in schema.setdefault("required", []):
            schema["required"] = [tag, *schema["required"]]


def _tags(node: Any) -> Any:
    """(component, property) of every discriminated union, wherever it is used."""
    if isinstance(node, dict):
        found = node.get("discriminator")
        if isinstance(found, dict) and "mapping" in found:
            for target in found["mapping"].values():
                yield target.rsplit("/", 1)[-1], found["propertyName"]
        for inner in node.values():
            yield from _tags(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _tags(inner)
