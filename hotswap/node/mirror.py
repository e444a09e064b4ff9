"""What every router process of a node must know, but for its lines to hosts, as messages: whole, and each change of it.

Neighbours: hotswap.node.router_pool sends them, hotswap.node.router_worker obeys them. No I/O; one event loop.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from hotswap.domain.accounts import PublicKey
from hotswap.domain.quota import QuotaOverride
from hotswap.node.control import Message
from hotswap.node.hosts import Lineup, SupervisedHost
from hotswap.node.quotas import Key
from hotswap.node.routes import Route
from hotswap.ports.tenant_settings import NodeTenants, TenantSettings

LearnSecrets = Callable[[str, Iterable[str]], None]
"""(plugin, values): said before any router is told these, so that logs and errors of the plugin's hosts are masked."""


class Mirror:
    """Remembers what was told, so that a change is a small message and a router that starts is told the same as all."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        number_of: Callable[[Any], int],
        tenants: NodeTenants | None,
        learn_secrets: LearnSecrets | None,
    ) -> None:
        """`routes` is the supervisor's; `number_of(handle)` is the host's number in messages."""
        self._routes = routes
        self._number_of = number_of
        self._tenants = tenants
        self._learn_secrets = learn_secrets
        self._published: dict[str, Route] = {}
        self._lineups: dict[str, dict[str, Any]] = {}
        self._told: dict[str, dict[str, TenantSettings]] = {}
        self._disabled: frozenset[Key] = frozenset()
        self._keys: Message = {"kind": "keys", "keys": [], "revoked": []}
        self._overrides: Message = {"kind": "quotas", "own": []}

    def everything(self) -> Iterator[Message]:
        """For a router that starts, in an order in which it can take it. Its lines to hosts go before the routes."""
        yield self._keys
        yield self._overrides
        yield self._disabled_message()
        for plugin, told in self._told.items():
            yield from self._settings_messages(plugin, told, [])

    def routes(self) -> Iterator[Message]:
        """The rest of `everything`."""
        for route in self._published.values():
            yield self._route_message(route)

    def used_hosts(self) -> set[int]:
        """Numbers of all that serve, or stand by, for a version that a route names."""
        used: set[int] = set()
        for versions in self._lineups.values():
            for lineup in versions.values():
                used |= {*lineup["serving"], lineup["standby"]}
        return used - {None}

    def route_change(self, plugin: str) -> Message | None:
        """What is new about the plugin's route, or who serves its versions; None when nothing is."""
        route = self._routes.get(plugin)
        if route is not self._published.get(plugin):
            if route is None:
                del self._published[plugin], self._lineups[plugin]
                return {"kind": "route", "plugin": plugin, "route": None}
            self._published[plugin] = route
            self._lineups[plugin] = self._lineups_of(route)
            return self._route_message(route)
        if route is None:
            return None
        lineups = self._lineups_of(route)
        if lineups == self._lineups[plugin] and not any(each["evicted"] for each in lineups.values()):
            return None
        self._lineups[plugin] = lineups
        return {"kind": "serving", "plugin": plugin, "versions": lineups}

    def key_change(self, keys: Sequence[PublicKey], revoked: Collection[str]) -> Message | None:
        message: Message = {
            "kind": "keys",
            "keys": [key.model_dump(mode="json") for key in keys],
            "revoked": sorted(revoked),
        }
        if message == self._keys:
            return None
        self._keys = message
        return message

    def override_change(self, overrides: Mapping[Key, QuotaOverride]) -> Message:
        own = [[*key, override.model_dump(mode="json", exclude_none=True)] for key, override in overrides.items()]
        self._overrides = {"kind": "quotas", "own": own}
        return self._overrides

    def tenant_changes(self, plugins: Iterable[str] | None) -> Iterator[Message]:
        """What is new of tenants' settings, of these plugins or all, and of who is disabled."""
        if self._tenants is None:
            return
        for plugin in list(self._tenants.plugins() if plugins is None else plugins):
            known, told = self._tenants.known(plugin), self._told.setdefault(plugin, {})
            changed = {tenant: each for tenant, each in known.items() if told.get(tenant) is not each}
            gone = [tenant for tenant in told if tenant not in known]
            if changed or gone:
                self._told[plugin] = dict(known)
                yield from self._settings_messages(plugin, changed, gone)
        disabled = frozenset(self._tenants.disabled)
        if disabled != self._disabled:
            self._disabled = disabled
            yield self._disabled_message()

    def _settings_messages(
        self, plugin: str, changed: Mapping[str, TenantSettings], gone: Sequence[str]
    ) -> Iterator[Message]:
        if self._learn_secrets is not None:
            self._learn_secrets(plugin, [value for each in changed.values() for value in each.secrets.values()])
        yield {
            "kind": "tenants",
            "plugin": plugin,
            "changed": {tenant: [each.version, each.config, each.secrets] for tenant, each in changed.items()},
            "gone": gone,
        }

    def _disabled_message(self) -> Message:
        return {"kind": "disabled", "pairs": sorted(self._disabled)}

    def _route_message(self, route: Route) -> Message:
        return {
            "kind": "route",
            "plugin": route.plugin,
            "route": {
                "generation": route.generation,
                "state": route.state.model_dump(mode="json"),
                "pins": {tenant: ref.version for tenant, ref in route.pins.items()},
                "refs": {name: version.ref.model_dump(mode="json") for name, version in route.hosts.items()},
            },
            "versions": self._lineups[route.plugin],
        }

    def _lineups_of(self, route: Route) -> dict[str, Any]:
        return {name: self._told_as(cast(SupervisedHost, host).lineup()) for name, host in route.hosts.items()}

    def _told_as(self, lineup: Lineup) -> dict[str, Any]:
        return {
            "serving": [self._number_of(handle) for handle in lineup.serving],
            "standby": self._number_of(lineup.standby) if lineup.standby is not None else None,
            "evicted": lineup.evicted,
            "back_at": lineup.back_at,
        }
