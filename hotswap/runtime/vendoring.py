"""Fetches a plugin's pinned, pure-Python libraries into a directory, the same bytes on every machine.

Neighbour: hotswap.runtime.build packs the directory as vendor/. pip of the running interpreter does the fetching with the
index its user configured; this module knows no index.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

from hotswap.domain.errors import FieldFault, InvalidInput

REQUIREMENTS = "requirements.txt"
PIP_TIMEOUT = timedelta(minutes=5)

_HASH = re.compile(r"^--hash=(sha256|sha384|sha512):[0-9a-f]{64,128}$")
_NATIVE = (".so", ".pyd", ".dylib", ".dll", ".a")
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Pythons a node may run. A library must fit each of them that `requires-python` allows."""

# What pip writes about where, when and by whom: it would make the same libraries differ from machine to machine.
_VOLATILE = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Pin:
    """One line of requirements.txt: exactly one version of one library."""

    name: str
    version: str
    extras: frozenset[str]
    hashes: tuple[str, ...]
    line: int

    @property
    def text(self) -> str:
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        return " ".join([f"{self.name}{extras}=={self.version}", *self.hashes])


def read_pins(requirements: Path) -> list[Pin]:
    """The pins of a requirements.txt. Raises InvalidInput naming every line that is not `name==version [--hash=...]`."""
    pins: list[Pin] = []
    faults: list[FieldFault] = []
    for number, line in _logical_lines(requirements.read_text(encoding="utf-8")):
        try:
            pins.append(_parse_pin(line, number))
        except ValueError as fault:
            faults.append(FieldFault(f"{REQUIREMENTS}:{number}", str(fault)))
    names = [canonicalize_name(pin.name) for pin in pins]
    faults.extend(
        FieldFault(f"{REQUIREMENTS}:{pin.line}", f"{pin.name} is pinned twice")
        for index, pin in enumerate(pins)
        if names[index] in names[:index]
    )
    if any(pin.hashes for pin in pins):
        faults.extend(
            FieldFault(f"{REQUIREMENTS}:{pin.line}", f"{pin.name} has no --hash, but others have; give all or none")
            for pin in pins
            if not pin.hashes
        )
    if faults:
        named = "; ".join(f"line {fault.field.rpartition(':')[2]}: {fault.message}" for fault in faults[:5])
        raise InvalidInput(f"{REQUIREMENTS} cannot be vendored: {named}", faults)
    return pins


def vendor(pins: list[Pin], target: Path, requires_python: str, timeout: timedelta = PIP_TIMEOUT) -> None:
    """Install the pins into the new directory `target`, stripped to what is the same everywhere.

    Raises InvalidInput naming the library at fault: no pure-Python wheel, a hash that differs, a dependency not pinned.
    """
    pythons = [version for version in _PYTHONS if SpecifierSet(requires_python).contains(f"{version}.99")]
    if not pythons:
        raise InvalidInput(
            f"requires-python '{requires_python}' allows none of {', '.join(_PYTHONS)}",
            [FieldFault("requires-python", f"allow one of {', '.join(_PYTHONS)}")],
        )
    _pip_install(pins, target, pythons[0], timeout)
    found = {canonicalize_name(item.name): item for item in distributions(path=[str(target)])}
    _check_pure(found, target)
    _check_complete(pins, found, pythons)
    _strip(target)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with comments cut and continuations joined, and the number each began at."""
    started, joined = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        cut = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        started = started if joined else number
        joined += cut.removesuffix("\\") + " "
        if cut.endswith("\\"):
            continue
        if joined.strip():
            yield started, joined.strip()
        joined = ""
    if joined.strip():
        yield started, joined.strip()


def _parse_pin(line: str, number: int) -> Pin:
    head, *options = re.split(r"\s+(?=--)", line)
    if head.startswith("-"):
        raise ValueError(f"'{line[:80]}': options are not taken; list pinned libraries only")
    try:
        requirement = Requirement(head)
    except InvalidRequirement:
        raise ValueError(f"'{head[:80]}' is not of the form name==version") from None
    if requirement.url:
        raise ValueError(f"{requirement.name} is fetched from a URL; pin a released version with ==")
    if requirement.marker:
        raise ValueError(f"{requirement.name} has a marker (';'), so bundles would differ by machine; remove it")
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith("*"):
        raise ValueError(f"{requirement.name} is not pinned to one version; write {requirement.name}==1.2.3")
    hashes = [option.strip() for option in options]
    for option in hashes:
        if not _HASH.match(option):
            raise ValueError(f"'{option[:80]}' is not taken; only --hash=sha256:... may follow a pin")
    return Pin(requirement.name, specifiers[0].version, frozenset(requirement.extras), tuple(sorted(hashes)), number)


def _pip_install(pins: list[Pin], target: Path, python: str, timeout: timedelta) -> None:
    listed = target.with_name(f"{target.name}-{REQUIREMENTS}")
    listed.write_text("".join(f"{pin.text}\n" for pin in pins), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    command += ["--target", str(target), "--no-deps", "--no-compile", "--no-warn-script-location"]
    # Only wheels that run anywhere: no platform, no ABI. The oldest Python allowed decides, not the one running here.
    command += [
        "--only-binary=:all:",
        "--implementation=py",
        "--platform=any",
        "--abi=none",
        f"--python-version={python}",
        "--ignore-requires-python",  # pip would ask the Python running here; _check_complete asks the plugin's
    ]
    if pins[0].hashes:
        command.append("--require-hashes")
    command += ["--requirement", str(listed)]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout.total_seconds(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(
            f"fetching the libraries took more than {timeout.total_seconds():.0f} s; is the package index reachable?"
        ) from None
    finally:
        listed.unlink()
    if done.returncode:
        raise _pip_fault(pins, done.stdout + done.stderr, python)


def _pip_fault(pins: list[Pin], output: str, python: str) -> InvalidInput:
    if "No module named pip" in output:
        return InvalidInput(f"{sys.executable} has no pip; run '{sys.executable} -m ensurepip' and build again")
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    said = (errors[-1] if errors else output.strip()[-300:])[:300]
    absent = re.search(r"No matching distribution found for ([A-Za-z0-9._-]+)", output)
    at_fault = canonicalize_name(absent[1]) if absent else ""
    if not absent and "HASHES" in output:
        # pip's list: "    name==version from <where>:" above "Expected sha256 ..."
        blamed = re.search(r"^\s+([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==\S+.*:\s*$", output, re.MULTILINE)
        at_fault = canonicalize_name(blamed[1]) if blamed else ""
        said = "the file that the index offers has another hash than the one pinned"
    for pin in pins:
        if canonicalize_name(pin.name) == at_fault:
            if absent:
                said = (
                    f"{pin.name}=={pin.version} has no pure-Python wheel for Python {python}: it does not exist, "
                    "is source only, or is compiled for a platform, which a bundle cannot hold"
                )
            return InvalidInput(f"cannot vendor {pin.name}: {said}", [FieldFault(f"{REQUIREMENTS}:{pin.line}", said)])
    return InvalidInput(f"pip could not fetch the libraries: {said}", [FieldFault(REQUIREMENTS, said)])


def _check_pure(found: Mapping[NormalizedName, Distribution], target: Path) -> None:
    """A wheel may call itself pure and yet carry machine code."""
    for name, distribution in found.items():
        tags = [line for line in (distribution.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")]
        if not tags or any(not tag.rstrip().endswith("-none-any") for tag in tags):
            raise _not_pure(name, "its wheel is built for one platform")
        for file in distribution.files or ():
            if file.suffix.lower() in _NATIVE:
                raise _not_pure(name, f"it holds {file}")
    stray = next((path for path in sorted(target.rglob("*")) if path.suffix.lower() in _NATIVE), None)
    if stray is not None:
        raise _not_pure(stray.relative_to(target).parts[0], f"it holds {stray.relative_to(target)}")


def _not_pure(name: str, fact: str) -> InvalidInput:
    message = f"{name} is not pure Python ({fact}); a bundle runs on every platform, so use another library"
    return InvalidInput(f"cannot vendor {message}", [FieldFault(REQUIREMENTS, message)])


def _check_complete(pins: list[Pin], found: Mapping[NormalizedName, Distribution], pythons: list[str]) -> None:
    """Nothing is resolved behind the author's back: what a library needs must be pinned too, in a version it accepts."""
    faults: dict[str, FieldFault] = {}
    for pin in pins:
        distribution = found.get(canonicalize_name(pin.name))
        if distribution is None or not SpecifierSet(f"=={pin.version}").contains(
            distribution.version, prereleases=True
        ):
            got = distribution.version if distribution else "nothing"
            message = f"{pin.name}=={pin.version} was asked for, but the wheel holds {got}"
            raise InvalidInput(f"cannot vendor {message}", [FieldFault(f"{REQUIREMENTS}:{pin.line}", message)])
        needs_python = "".join(distribution.metadata.get_all("Requires-Python") or ())
        # The oldest decides: an upper bound is mostly caution, and the sandbox trial finds what truly fails.
        if not SpecifierSet(needs_python).contains(f"{pythons[0]}.99"):
            said = f"{pin.name}=={pin.version} needs Python {needs_python}, but requires-python allows {pythons[0]}"
            faults.setdefault(said, FieldFault(f"{REQUIREMENTS}:{pin.line}", said))
        for needed in _needs(distribution, pin.extras, pythons):
            present = found.get(canonicalize_name(needed.name))
            if present is None:
                said = f"{pin.name} needs {needed.name}{needed.specifier}; add it, pinned"
            elif not needed.specifier.contains(present.version, prereleases=True):
                said = f"{pin.name} needs {needed.name}{needed.specifier}, but {present.version} is pinned"
            else:
                continue
            faults.setdefault(said, FieldFault(f"{REQUIREMENTS}:{pin.line}", said))
    if faults:
        raise InvalidInput(
            f"{REQUIREMENTS} does not fit together: {'; '.join(list(faults)[:5])}", list(faults.values())
        )


def _needs(distribution: Distribution, extras: frozenset[str], pythons: list[str]) -> Iterator[Requirement]:
    """Requirements that hold on Linux under any Python the plugin allows."""
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate(_environment(python, extra)) for python in pythons for extra in {"", *extras}
        ):
            yield requirement


def _environment(python: str, extra: str) -> dict[str, str]:
    """A node's answers to environment markers; fixed, so that the answer does not depend on who builds."""
    return {
        "extra": extra,
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def _strip(target: Path) -> None:
    """Leave only what every machine gets alike: no scripts (their first line names an interpreter), no pip diaries."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    for cache in list(target.rglob("__pycache__")):
        shutil.rmtree(cache)
    for bytecode in list(target.rglob("*.py[co]")):
        bytecode.unlink()
    for info in target.glob("*.dist-info"):
        for name in _VOLATILE:
            (info / name).unlink(missing_ok=True)
