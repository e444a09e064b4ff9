"""The page at /docs: the OpenAPI document as plain HTML. No script and nothing fetched, so it works without internet.

Pure: document in, page out.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}
.m{display:inline-block;width:4.2rem;font-weight:700}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f6f8fa;padding:.7rem;overflow:auto;border-radius:6px}
table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}
.q{color:#57606a}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}pre{background:#161b22}.q{color:#8b949e}
h2,details{border-color:#30363d}}
"""


def render(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    body = "\n".join(_body(document))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        f"<h1>{title}</h1>\n<p>{escape(document['info'].get('description', ''))}</p>\n"
        '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a></p>\n'
        f"{body}</html>\n"
    )


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(method, path, operation))
    for tag, parts in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>"
        yield from parts
    yield "<h2>schemas</h2>"
    for name, schema in sorted(document.get("components", {}).get("schemas", {}).items()):
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_schema(schema)}</details>'


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    told = operation.get("description", operation.get("summary", ""))
    lines = [
        f'<details><summary><span class="m">{escape(method.upper())}</span><code>{escape(path)}</code> '
        f'<span class="q">{escape(told)}</span></summary>'
    ]
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(item['name'])}</code></td><td>{escape(item['in'])}"
            f"{', required' if item.get('required') else ''}</td><td>{_kind(item.get('schema', {}))}</td>"
            f"<td>{escape(item.get('description', ''))}</td></tr>"
            for item in parameters
        )
        lines.append(f"<table>{rows}</table>")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content.get("schema", {})
        lines.append(f"<p>Body, {escape(kind)}: {_kind(schema)}</p>{_schema(schema)}")
    for status, answer in operation.get("responses", {}).items():
        shapes = ", ".join(_kind(item["schema"]) for item in answer.get("content", {}).values() if item.get("schema"))
        lines.append(f"<div><b>{escape(status)}</b> {escape(answer.get('description', ''))} {shapes}</div>")
    return "".join([*lines, "</details>"])


def _schema(schema: Mapping[str, Any]) -> str:
    if "properties" not in schema:
        return ""
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{'required' if name in required else ''}</td>"
        f"<td>{_kind(item)}</td><td>{escape(item.get('description', ''))}</td></tr>"
        for name, item in schema["properties"].items()
    )
    return f"<table>{rows}</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to the ones it names."""
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    for joined in ("anyOf", "oneOf", "allOf"):
        if joined in schema:
            return " or ".join(_kind(item) for item in schema[joined])
    if "enum" in schema:
        return escape(" | ".join(str(value) for value in schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {})) or 'anything'}"
    words = [str(schema.get("type", "")), str(schema.get("format", ""))]
    bounds = {"minimum": "at least", "maximum": "at most", "maxLength": "up to", "default": "default"}
    words += [f"{word} {schema[key]}" for key, word in bounds.items() if schema.get(key) not in (None, "")]
    return escape(" ".join(word for word in words if word))
