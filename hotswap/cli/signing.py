"""Commands on signatures: make a key, sign an archive, say which publishers' keys count. Signing itself needs no api."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli import registry_calls as calls
from hotswap.cli.output import ago, clean
from hotswap.cli.plugins import Bundle, read_bundle, told_plainly
from hotswap.cli.session import Session, command

KeyOption = Annotated[Path, typer.Option("--key", "-k", help="Private key (PEM).", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    command(app, examples="hotswap plugin keygen acme.pem")(keygen)
    command(
        app,
        examples="hotswap plugin sign phone-format-1.0.0.zip --key acme.pem\n"
        "hotswap plugin sign phone-format-1.0.0.zip --key acme.pem --attach",
    )(sign)
    command(app, examples="hotswap plugin keys")(keys)
    command(app, examples="hotswap plugin trust acme --key acme.pub.pem --only phone-format")(trust)
    command(app, examples='hotswap plugin distrust KEY_ID -m "the laptop was stolen"')(distrust)


def signature_of(bundle: Bundle, key: Path) -> dict[str, str]:
    """`keyId` and `signature` as the api takes them. Raises UsageFault, OSError."""
    from hotswap.runtime import signing

    with told_plainly():
        made = signing.sign(signing.read_private(key), bundle.digest)
    return {"keyId": made.key_id, "signature": made.value}


async def keygen(
    session: Session, file: Annotated[Path, typer.Argument(help="Where the private key goes; never overwritten.")]
) -> None:
    """Make an Ed25519 key to sign with: the private key in FILE, the public one beside it as FILE.pub.pem."""
    from hotswap.runtime import signing

    public_file = file.with_name(f"{file.name.removesuffix('.pem')}.pub.pem")
    public = signing.generate(file)
    with public_file.open("x", encoding="utf-8") as out:
        out.write(signing.public_pem(public))
    document = {"keyId": signing.key_id_of(public), "private": str(file), "public": str(public_file)}
    session.output.say(f"{file} and {public_file}, key id {document['keyId']}", document)
    if not session.output.as_json:
        session.output.note(f"an Admin makes it count: hotswap plugin trust NAME --key {public_file}")


async def sign(
    session: Session,
    archive: Annotated[Path, typer.Argument(help="The zip that `plugin build` made, or the folder it was made in.")],
    key: KeyOption,
    attach: Annotated[
        bool, typer.Option("--attach", help="Add it to the version that is registered with these bytes.")
    ] = False,
) -> None:
    """Sign an archive's SHA-256. Without --attach nothing leaves this machine."""
    bundle = read_bundle(archive)
    signature = signature_of(bundle, key)
    document: dict[str, Any] = {**signature, "digest": bundle.digest}
    name, version = bundle.manifest.name, bundle.manifest.version
    if attach:
        async with session.api() as api:
            document = await calls.sign(api, name, version, signature)
        session.output.say(f"{name} {version} is signed with {signature['keyId']}", document)
        return
    session.output.say(signature["signature"], document)
    if not session.output.as_json:
        session.output.note(f"by key {signature['keyId']} over sha256 {bundle.digest}")


async def keys(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
    offset: Annotated[int, typer.Option("--offset", min=0, help="How many to leave out.")] = 0,
) -> None:
    """List the publishers' keys that may sign artifacts."""
    async with session.api() as api:
        page = await calls.publisher_keys(api, limit=limit, offset=offset)
    rows = [
        (
            item["keyId"],
            item["publisher"],
            ", ".join(item["plugins"]) or "all plugins",
            _standing(item),
            ago(item["registeredAt"]) if session.output.live else item["registeredAt"],
        )
        for item in page["items"]
    ]
    session.output.table(("key id", "publisher", "signs", "state", "registered"), rows, page, "no keys yet")


def _standing(item: dict[str, Any]) -> str:
    if item["revokedAt"]:
        return f"revoked: {item['revokeReason']}"
    return "counts" if item["trusted"] else "not among the trusted keys"


async def trust(
    session: Session,
    publisher: Annotated[str, typer.Argument(help="Whose key it is.")],
    key: Annotated[Path, typer.Option("--key", "-k", help="Public (or private) key, PEM.", show_default=False)],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A plugin it may sign (repeatable; default: all).")
    ] = None,
) -> None:
    """Register a publisher's key. Only its public half is sent."""
    from hotswap.runtime import signing

    with told_plainly():
        public = signing.read_public(key)
    body = {"publisher": publisher, "publicKey": public, "plugins": list(only or ())}
    async with session.api() as api:
        made = await calls.register_key(api, body)
    session.output.say(f"{clean(publisher)} signs with {made['keyId']}", made)


async def distrust(
    session: Session,
    key_id: Annotated[str, typer.Argument(help="Id of the key, from `plugin keys`.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; goes into the audit log.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Although nodes that restart would not load what serves any more.")
    ] = False,
) -> None:
    """Revoke a publisher's key, for good."""
    async with session.api() as api:
        done = await calls.revoke_key(api, key_id, {"reason": reason, "force": force})
    session.output.say(f"the key {done['keyId']} of {clean(done['publisher'])} counts no more", done)
