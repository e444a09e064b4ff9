"""Whether the libraries that a bundle brings are the ones its manifest declares (dependencies of type Package). Pure.

A package that is declared and not vendored is only recorded: nobody here can say what a host has besides.
"""

from collections.abc import Mapping, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from hotswap.domain.errors import FieldFault
from hotswap.domain.manifest import Dependency


def package_faults(dependencies: Sequence[Dependency], vendored: Mapping[str, str]) -> list[FieldFault]:
    """Faults with their keys in the manifest. `vendored`: versions by normalised name; constraints are PEP 440."""
    faults: list[FieldFault] = []
    for index, dependency in enumerate(dependencies):
        if dependency.type != "Package":
            continue
        where, there = f"dependencies.{index}", vendored.get(canonicalize_name(dependency.name))
        wanted = _specifiers(dependency.version_constraint, f"{where}.versionConstraint", faults)
        if there is not None and wanted is not None and not wanted.contains(there, prereleases=True):
            message = f"is {wanted}, but the bundle vendors {dependency.name} {there}"
            faults.append(FieldFault(f"{where}.versionConstraint", message))
        for number, text in enumerate(dependency.conflicts):
            ruled_out = _specifiers(text, f"{where}.conflicts.{number}", faults)
            if there is not None and ruled_out is not None and ruled_out.contains(there, prereleases=True):
                message = f"rules out {ruled_out}, but the bundle vendors {dependency.name} {there}"
                faults.append(FieldFault(f"{where}.conflicts.{number}", message))
    return faults


def _specifiers(text: str, field: str, faults: list[FieldFault]) -> SpecifierSet | None:
    try:
        return SpecifierSet("" if text.strip() == "*" else text)
    except InvalidSpecifier:
        faults.append(FieldFault(field, f"'{text[:80]}' is not a PEP 440 range; write one such as '>=1.4,<2' or '*'"))
        return None
