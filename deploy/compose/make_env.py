"""Writes .env for docker-compose.temporal.yml: a random secret for each password, readable by its owner only.

`make compose-env`, or this file with the path. A file that is there is never touched: its passwords are those of volumes
that exist. Standard library only, so that it runs on a host without the project's environment.
"""

import base64
import os
import secrets
import sys
from pathlib import Path

PASSWORDS = (
    "POSTGRES_PASSWORD",
    "HOTSWAP_DB_PASSWORD",
    "TEMPORAL_DB_PASSWORD",
    "REDIS_PASSWORD",
    "OBJECT_STORE_ROOT_PASSWORD",
    "OBJECT_STORE_SECRET_KEY",
    "NODE_ADMIN_TOKEN",
    "GRAFANA_PASSWORD",
    "AUDIT_SIGNING_KEY",
)
"""Hexadecimal: these end up in urls, in shells and in configuration files, and mean themselves in all of them."""


def lines() -> list[str]:
    """The file's content, new at every call."""
    return [
        "# Made by make compose-env. These are passwords: keep the file, keep it to yourself, never commit it.",
        *(f"{name}={secrets.token_hex(24)}" for name in PASSWORDS),
        f"OBJECT_STORE_ROOT_USER=root-{secrets.token_hex(4)}",
        f"OBJECT_STORE_ACCESS_KEY=hotswap-{secrets.token_hex(6)}",
        "# Seals the keys that sign tokens (docs/authentication.md). Lost, everybody's tokens end.",
        f"KEY_ENCRYPTION_KEY={base64.b64encode(secrets.token_bytes(32)).decode()}",
        "# Wraps the keys of tenants' secrets (docs/tenants.md). Lost, every secret must be set anew.",
        f"TENANT_WRAPPING_KEY={base64.b64encode(secrets.token_bytes(32)).decode()}",
        "# Encrypts what Temporal stores (docs/temporal.md). Lost, running rollouts cannot go on.",
        f"TEMPORAL_PAYLOAD_KEYS={base64.b64encode(secrets.token_bytes(32)).decode()}",
        "# Where api, nodes and Grafana are published; 0.0.0.0 = to the network, for which put TLS in front first.",
        "HOTSWAP_PUBLISH=127.0.0.1",
    ]


def main(arguments: list[str]) -> int:
    """0 when it was written, 1 when there is one already."""
    target = Path(arguments[0] if arguments else ".env")
    try:
        # Created with its mode, so that nobody can read it between two calls.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(
            f"{target} is there already and stays as it is: the volumes' passwords are in it. To begin anew, remove the "
            "volumes (docker compose -f docker-compose.temporal.yml down --volumes), then the file.",
            file=sys.stderr,
        )
        return 1
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines()) + "\n")
    print(f"{target} written (mode 0600)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
