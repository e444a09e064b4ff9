"""A small server that speaks the part of Vault's transit engine that we use, as its HTTP API documents it.

POST /v1/transit/encrypt/{key} {"plaintext": base64} -> {"data": {"ciphertext": "vault:v1:...", "key_version": 1}}
POST /v1/transit/decrypt/{key} {"batch_input": [{"ciphertext"}]} -> {"data": {"batch_results": [{"plaintext"} | {"error"}]}},
with 400 when an item failed. Refusals: {"errors": [...]}. A request that the real server would not take is refused here too.
"""

import base64
import os
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hotswap.node.admin import AdminServer


class VaultFake:
    """`rotate` makes another version of the key, as POST /v1/transit/keys/{key}/rotate does."""

    def __init__(self) -> None:
        self.token = "hvs.fake"
        self.broken = False
        self.namespaces: set[str] = set()
        self._versions: list[bytes] = []
        routes = [
            Route("/v1/transit/encrypt/hotswap", self._encrypt, methods=["POST"]),
            Route("/v1/transit/decrypt/hotswap", self._decrypt, methods=["POST"]),
        ]
        self._server = AdminServer(Starlette(routes=routes), "127.0.0.1", 0)  # type: ignore[arg-type]
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._stopped = False
        self.rotate()

    def rotate(self) -> None:
        self._versions.append(AESGCM.generate_key(256))

    async def __aenter__(self) -> Self:
        self._server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await self._server.close()

    async def _asked(self, request: Request) -> dict[str, Any] | Response:
        if namespace := request.headers.get("x-vault-namespace"):
            self.namespaces.add(namespace)
        if self.broken:
            return JSONResponse({"errors": ["internal error"]}, 500)
        if request.headers.get("x-vault-token") != self.token:
            return JSONResponse({"errors": ["permission denied"]}, 403)
        document: dict[str, Any] = await request.json()
        return document

    async def _encrypt(self, request: Request) -> Response:
        asked = await self._asked(request)
        if isinstance(asked, Response):
            return asked
        nonce = os.urandom(12)
        plain = base64.b64decode(asked["plaintext"], validate=True)
        sealed = base64.b64encode(nonce + AESGCM(self._versions[-1]).encrypt(nonce, plain, None)).decode()
        version = len(self._versions)
        return _data({"ciphertext": f"vault:v{version}:{sealed}", "key_version": version})

    async def _decrypt(self, request: Request) -> Response:
        asked = await self._asked(request)
        if isinstance(asked, Response):
            return asked
        results = [self._opened(item["ciphertext"]) for item in asked["batch_input"]]
        return _data({"batch_results": results}, 400 if any("error" in one for one in results) else 200)

    def _opened(self, ciphertext: str) -> dict[str, str]:
        _, version, sealed = ciphertext.split(":")
        try:
            whole = base64.b64decode(sealed, validate=True)
            plain = AESGCM(self._versions[int(version[1:]) - 1]).decrypt(whole[:12], whole[12:], None)
        except (InvalidTag, ValueError, IndexError):
            return {"error": "cipher: message authentication failed"}
        return {"plaintext": base64.b64encode(plain).decode()}


def _data(data: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse({"request_id": "fake", "lease_id": "", "renewable": False, "data": data}, status)
