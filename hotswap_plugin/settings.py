"""A tenant's configuration and secrets as a plugin sees them: read-only. Standard library only.

Made by hotswap.runtime.host_server of what the node sends; hotswap_plugin.context hands them out.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn


class ReadOnlyDict(dict[str, Any]):
    """A dict that refuses to be changed: many calls, at once and later ones, share it. Copies of it are ordinary dicts."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("the configuration is read-only; change a copy: dict(context.config)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


class Secrets(Mapping[str, str]):
    """Secrets by name. What it prints as has the names and no value."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Secrets: {', '.join(sorted(self._values)) or 'none'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled or copied; read the one you need by its name")


class TenantView:
    """What one tenant has, at one version (0: nothing of its own). `secrets` None: the manifest may not read any."""

    __slots__ = ("config", "secrets", "version")

    def __init__(self, version: int, config: Mapping[str, Any], secrets: Mapping[str, str] | None) -> None:
        self.version = version
        self.config: Mapping[str, Any] = read_only(dict(config))
        self.secrets = None if secrets is None else Secrets(secrets)


def read_only(value: Any) -> Any:
    """JSON's objects as ReadOnlyDict and its lists as tuples, all the way down; json.dumps still takes them."""
    if isinstance(value, dict):
        return ReadOnlyDict({key: read_only(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return tuple(read_only(inner) for inner in value)
    return value


NOTHING = TenantView(0, {}, None)
