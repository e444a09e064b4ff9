"""Commands on plugins: make, pack, push, look up, download. Building is hotswap.runtime.build's; this is its face."""

import asyncio
import hashlib
import json
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hotswap.cli.client import ApiClient
from hotswap.cli.faults import ApiError, CliError, UsageFault
from hotswap.cli.output import Output, ago, clean, size
from hotswap.cli.registry_calls import sign, upload_past
from hotswap.cli.session import Session, command
from hotswap.domain.errors import HotSwapError
from hotswap.domain.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

MANIFEST_NAMES = ("plugin.json", "plugin.toml")

PluginArgument = Annotated[str, typer.Argument(help="Name of the plugin.")]
VersionArgument = Annotated[str, typer.Argument(help="Version, e.g. 1.0.0.")]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    command(app, examples="hotswap plugin init invoice-export")(init)
    command(app, examples="hotswap plugin build invoice-export\nhotswap plugin build . -o /tmp/one.zip")(build)
    command(
        app,
        examples="hotswap plugin push invoice-export\nhotswap plugin push one.zip --notes 'first'\n"
        "hotswap plugin push one.zip --sign-key acme.pem",
    )(push)
    command(app, name="list", examples="hotswap plugin list --search export")(list_plugins)
    command(app, examples="hotswap plugin show phone-format")(show)
    command(app, examples="hotswap plugin versions phone-format")(versions)
    command(app, examples="hotswap plugin download phone-format 1.0.0 -o phone.zip")(download)


async def init(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name: lower-case letters, digits, hyphens.")],
    directory: Annotated[
        Path | None, typer.Option("--directory", "-d", help="Where (default: ./NAME).", show_default=False)
    ] = None,
) -> None:
    """Start a new plugin: a manifest, a module and a smoke test that work."""
    from hotswap.runtime.build import init_plugin

    target = directory or Path(name)
    with told_plainly():
        init_plugin(target, name)
    session.output.say(f"made {target}", {"directory": str(target), "name": name})
    if not session.output.as_json:
        session.output.note(f"try it: hotswap plugin test {target}; pack it: hotswap plugin build {target}")


async def build(
    session: Session,
    source: Annotated[Path, typer.Argument(help="Folder with plugin.json or plugin.toml.")] = Path(),
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The zip (default: dist/NAME-VERSION.zip in the folder).", show_default=False),
    ] = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="Smaller, but the digest depends on this machine's zlib.")
    ] = False,
) -> None:
    """Pack a folder into a zip, its pinned libraries vendored. The same input gives the same digest."""
    from hotswap.runtime.build import build_plugin

    with told_plainly():
        built = await asyncio.to_thread(build_plugin, source, out, compress=compress)
    document = {
        "path": str(built.path),
        "digest": built.digest,
        "sizeBytes": built.size_bytes,
        "name": built.manifest.name,
        "version": built.manifest.version,
    }
    session.output.say(f"{built.path} {size(built.size_bytes)} sha256 {built.digest}", document)
    if not session.output.as_json:
        session.output.note(f"push it: hotswap plugin push {built.path}")


@dataclass(frozen=True)
class Bundle:
    """A zip on disk with what its manifest says."""

    path: Path
    manifest: Manifest
    manifest_text: str
    digest: str


def read_bundle(path: Path) -> Bundle:
    """Read manifest and digest out of a zip, or of the zip that `plugin build` left in a plugin's folder.

    Raises UsageFault naming what is wrong; whether the bundle is any good is the api's to judge.
    """
    if path.is_dir():
        path = _built_in(path)
    if path.exists() and not path.is_file():
        raise UsageFault(f"{path} is not a regular file", "name the zip that `hotswap plugin build` made")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in MANIFEST_NAMES if name in archive.namelist()), None)
            if name is None:
                raise UsageFault(f"{path} holds no {' or '.join(MANIFEST_NAMES)} at its root", "build it again")
            with archive.open(name) as member:
                content = member.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise UsageFault(f"there is no {path}", "make it with: hotswap plugin build FOLDER") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as fault:
        raise UsageFault(
            f"{path} cannot be read as a zip: {fault}", "build it again: hotswap plugin build FOLDER"
        ) from None
    with told_plainly():
        manifest = parse_manifest(content, name)
    document = tomllib.loads(content.decode()) if name.endswith(".toml") else json.loads(content)
    return Bundle(path, manifest, json.dumps(document), digest)


def _built_in(folder: Path) -> Path:
    found = [folder / name for name in MANIFEST_NAMES if (folder / name).is_file()]
    if not found:
        raise UsageFault(f"{folder} holds no {' or '.join(MANIFEST_NAMES)}", "name a plugin's folder or a zip")
    with told_plainly():
        manifest = parse_manifest(found[0].read_bytes(), found[0].name)
    path = folder / "dist" / f"{manifest.name}-{manifest.version}.zip"
    if not path.is_file():
        raise UsageFault(f"there is no {path} yet", f"pack it first: hotswap plugin build {folder}")
    return path


@dataclass(frozen=True)
class Pushed:
    """What a push did. `already` = the same bytes were there before."""

    document: dict[str, Any]
    already: bool
    registered: bool


async def push_bundle(
    api: ApiClient,
    bundle: Bundle,
    notes: str = "",
    told: Callable[[int], None] = lambda read: None,
    more: Mapping[str, str] | None = None,
) -> Pushed:
    """Register the plugin if need be and upload the version. The same digest already there is fine.

    What the api says is too large for it goes to the object store directly. `more`: further fields of the form.

    Raises ApiError; CONFLICT when the version is there with other bytes: versions are immutable.
    """
    manifest = bundle.manifest
    registered = await _register_if_new(api, manifest)
    there = None if registered else await _version_or_none(api, bundle)
    if there is None:
        try:
            fields = {"manifest": bundle.manifest_text, "digest": bundle.digest, "releaseNotes": notes, **(more or {})}
            return Pushed(await _uploaded(api, bundle, fields, told), already=False, registered=registered)
        except ApiError as fault:
            if fault.status != 409:
                raise
            there = await _version_or_none(api, bundle)  # somebody pushed it at the same time
            if there is None:
                raise
    if there.get("digest") != bundle.digest:
        raise ApiError(
            409,
            "CONFLICT",
            f"{manifest.name} {manifest.version} is there already with other bytes"
            f" (sha256 {str(there.get('digest'))[:12]}… there, {bundle.digest[:12]}… here): versions are immutable",
        )
    return Pushed(there, already=True, registered=registered)


async def _uploaded(
    api: ApiClient, bundle: Bundle, fields: dict[str, str], told: Callable[[int], None]
) -> dict[str, Any]:
    name, version = bundle.manifest.name, bundle.manifest.version
    try:
        return await api.upload(name, version, bundle.path, fields, told)
    except ApiError as fault:
        if fault.status != 413:
            raise
    return await upload_past(api, name, version, bundle.path, fields, told)


async def _register_if_new(api: ApiClient, manifest: Manifest) -> bool:
    try:
        await api.plugin(manifest.name)
    except ApiError as fault:
        if fault.status != 404:
            raise
    else:
        return False
    body = {
        "name": manifest.name,
        "displayName": manifest.name.replace("-", " ").capitalize(),
        "type": str(manifest.type),
        "description": manifest.description,
        "author": manifest.author,
    }
    try:
        await api.register_plugin(body)
    except ApiError as fault:
        if fault.status != 409:  # 409: somebody registered it at the same time
            raise
        return False
    return True


async def _version_or_none(api: ApiClient, bundle: Bundle) -> dict[str, Any] | None:
    try:
        return await api.version(bundle.manifest.name, bundle.manifest.version)
    except ApiError as fault:
        if fault.status == 404:
            return None
        raise


async def push(
    session: Session,
    archive: Annotated[Path, typer.Argument(help="The zip that `plugin build` made, or the folder it was made in.")],
    notes: Annotated[str, typer.Option("--notes", "-m", help="Release notes.")] = "",
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", help="Sign it with this private key (PEM).", show_default=False)
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="For Development only, until it is submitted.")] = False,
) -> None:
    """Upload a version; the plugin is registered if it is not there. Pushing the same bytes again is fine."""
    from hotswap.cli.signing import signature_of

    bundle = read_bundle(archive)
    more = signature_of(bundle, sign_key) if sign_key else {}
    if draft:
        more["draft"] = "true"
    async with session.api() as api:
        with _progress(session.output, f"pushing {bundle.path.name}", bundle.path.stat().st_size) as told:
            pushed = await push_bundle(api, bundle, notes, told, more)
        if pushed.already and sign_key:
            await sign(api, bundle.manifest.name, bundle.manifest.version, signature_of(bundle, sign_key))
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    text = f"{name} is there already, same digest" if pushed.already else f"pushed {name}"
    session.output.say(f"{text} (sha256 {bundle.digest})", {**pushed.document, "already": pushed.already})
    if not session.output.as_json and not pushed.already:
        session.output.note(f"deploy it: hotswap deploy {name} -e development --watch")


async def list_plugins(
    session: Session,
    search: Annotated[
        str | None, typer.Option("--search", help="Part of name or description.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
    offset: Annotated[int, typer.Option("--offset", min=0, help="How many to leave out.")] = 0,
) -> None:
    """List the registered plugins."""
    async with session.api() as api:
        page = await api.plugins(search=search, limit=limit, offset=offset)
    rows = [
        (item["name"], item.get("currentVersion") or "–", item["type"], item["status"], item.get("description", ""))
        for item in page["items"]
    ]
    columns = ("name", "newest", "type", "status", "description")
    session.output.table(columns, rows, page, "no plugins yet: hotswap plugin push ZIP")


async def show(session: Session, plugin: PluginArgument) -> None:
    """Show one plugin."""
    async with session.api() as api:
        document = await api.plugin(plugin)
    rows = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in document.items()
    ]
    session.output.table(("field", "value"), rows, document, "nothing")


async def versions(
    session: Session,
    plugin: PluginArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
    offset: Annotated[int, typer.Option("--offset", min=0, help="How many to leave out.")] = 0,
) -> None:
    """List the versions of a plugin, newest first."""
    async with session.api() as api:
        page = await api.versions(plugin, limit=limit, offset=offset)
    rows = [
        (
            item["version"],
            item["status"],
            size(item["sizeBytes"]) if session.output.live else item["sizeBytes"],
            str(item["digest"])[:16] if session.output.live else item["digest"],
            ago(item["createdAt"]) if session.output.live else item["createdAt"],
            item["createdBy"],
            item.get("releaseNotes", ""),
        )
        for item in page["items"]
    ]
    columns = ("version", "status", "size", "sha256", "pushed", "by", "notes")
    session.output.table(columns, rows, page, f"no versions yet: hotswap plugin push {clean(plugin)}-1.0.0.zip")


async def download(
    session: Session,
    plugin: PluginArgument,
    version: VersionArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File (default: PLUGIN-VERSION.zip).", show_default=False)
    ] = None,
) -> None:
    """Download a version's zip; its digest is compared with the registry's."""
    async with session.api() as api:
        record = await api.version(plugin, version)
        target = out or Path(f"{record['plugin']}-{record['version']}.zip")
        with _progress(session.output, f"downloading {target.name}", int(record["sizeBytes"])) as told:
            digest = await api.download(plugin, version, target, told)
    if digest != record["digest"]:
        target.unlink(missing_ok=True)
        raise CliError(
            f"{target} has sha256 {digest}, the registry says {record['digest']}; the file was thrown away",
            "try again; if it stays so, the object store holds other bytes: tell who runs it",
        )
    session.output.say(f"{target} (sha256 {digest})", {"path": str(target), "digest": digest})


@contextmanager
def told_plainly() -> Iterator[None]:
    """Faults of the bundle builder, the manifest reader and the signer as what the command line prints."""
    try:
        yield
    except HotSwapError as fault:
        faults = [(item.field, item.message) for item in fault.faults]
        raise UsageFault(fault.message, "correct it and repeat the command", faults=faults) from None


@contextmanager
def _progress(output: Output, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while bytes move; nothing when nobody looks."""
    if output.as_json or not output.errors.is_terminal:
        yield lambda read: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=output.errors, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda read: bar.update(task, completed=min(read, total))
