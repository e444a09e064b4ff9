"""Finds the example plugins, builds and pushes them. Neighbours: hotswap.runtime.build packs, hotswap.cli.plugins pushes."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hotswap.cli.client import ApiClient
from hotswap.cli.output import size
from hotswap.cli.plugins import push_bundle, read_bundle
from hotswap.demo.traffic import Payload, read_payloads
from hotswap.domain.errors import InvalidInput
from hotswap.runtime.build import BuildResult, build_plugin

TRAFFIC = "traffic.json"


@dataclass(frozen=True)
class Example:
    """A built version of an example and the calls that exercise it."""

    built: BuildResult
    payloads: list[Payload]

    @property
    def version(self) -> str:
        return str(self.built.manifest.version)


def find_examples(directory: Path | None = None) -> Path:
    """The folder of example plugins: as given, of this checkout, or of the working directory. Raises InvalidInput."""
    checkout = Path(__file__).resolve().parents[2] / "examples" / "plugins"
    candidates = [directory] if directory else [checkout, Path.cwd() / "examples" / "plugins"]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise InvalidInput(
        f"no example plugins in {' or '.join(map(str, candidates))}; run it in a checkout, or name them with --examples"
    )


def build_examples(directory: Path, out: Path, plugin: str, versions: Iterable[str]) -> dict[str, Example]:
    """Build <directory>/<plugin>/<version>/ for each version, in parallel; by version. Raises InvalidInput and the like."""
    folder = directory / plugin
    traffic = folder / TRAFFIC
    try:
        payloads = read_payloads(json.loads(traffic.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise InvalidInput(f"{traffic} cannot be used: {fault}") from None
    out.mkdir(parents=True, exist_ok=True)

    def build(version: str) -> Example:
        return Example(build_plugin(folder / version, out / f"{plugin}-{version}.zip"), payloads)

    names = list(versions)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(names, pool.map(build, names), strict=True))


async def push_all(api: ApiClient, examples: Iterable[Example], say: Callable[[str], None]) -> None:
    """Push each through the api, in order. Raises ApiError."""
    for example in examples:
        pushed = await push_bundle(api, read_bundle(example.built.path), "pushed by the demo")
        what = "was there already" if pushed.already else f"pushed, {size(example.built.size_bytes)}"
        say(f"  {example.built.manifest.name} {example.version} {what}, sha256 {example.built.digest[:12]}…")
