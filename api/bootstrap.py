"""`python -m api.bootstrap`: the first Admin of a fresh installation and the first signing keys; never a default password.

Run it where the api's settings are (a Kubernetes job after the migrations); `hotswap auth bootstrap` does the same, and
`hotswap up` calls `bootstrap`. Where an Admin can log in already nothing changes. Composition root of its own.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from api.services.accounts import make_first_admin
from api.services.trust import TrustStore
from hotswap.adapters.postgres.database import Database
from hotswap.config import PostgresSettings, load_settings
from hotswap.config_access import AuthSettings
from hotswap.domain.errors import HotSwapError
from hotswap.identity.passwords import Passwords, check_password, new_password

DEFAULT_NAME = "admin"


async def bootstrap(postgres: PostgresSettings, auth: AuthSettings, name: str, password: str) -> bool:
    """True when the Admin was made; False when there is one already. Raises Conflict (name taken), Unavailable."""
    check_password(password)
    database = Database(postgres)
    try:
        trust = TrustStore(database.unit_of_work, auth) if auth.key_encryption_key is not None else None
        async with database.unit_of_work() as uow:
            return await make_first_admin(uow, trust, Passwords(), name, password)
    finally:
        await database.close()


def password_in(path: Path) -> str:
    """The password that the file holds; a new one is written there, for the owner's eyes only, when there is no file.

    Written before the Admin is made: a crash in between leaves a password that the next attempt uses.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8").strip()
    password = new_password()
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{password}\n")
    return password


def main(arguments: list[str] | None = None) -> int:
    """0 when there is an Admin now, 1 when it could not be made, with the reason on stderr."""
    parser = argparse.ArgumentParser("python -m api.bootstrap", description="Make the first Admin.")
    parser.add_argument("--user", default=DEFAULT_NAME, help=f"their name (default: {DEFAULT_NAME})")
    parser.add_argument("--password-file", type=Path, default=None, help="read the password there, or write a new one")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings()
        password = password_in(given.password_file) if given.password_file else new_password()
        made = asyncio.run(bootstrap(settings.postgres, settings.auth, given.user, password))
    except ValueError:
        sys.stderr.write(f"'{given.user}' is no user name; write 1 to 63 of a-z, 0-9, '.', '_' and '-'\n")
        return 1
    except (HotSwapError, OSError) as fault:
        sys.stderr.write(f"{fault.message if isinstance(fault, HotSwapError) else fault}\n")
        return 1
    if not made:
        sys.stderr.write("an Admin can log in already; nothing was changed\n")
    elif given.password_file:
        sys.stdout.write(f"user {given.user}, password in {given.password_file}\n")
    else:
        sys.stdout.write(f"user {given.user}, password {password} (told once; `hotswap login` asks for it)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
