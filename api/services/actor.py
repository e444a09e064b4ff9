"""Who asks: the caller as the services see him, whatever proved it (api.security)."""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from hotswap.domain.deployment import Environment, Role
from hotswap.domain.errors import Forbidden

OPEN_TO_DEVELOPERS = frozenset({Environment.DEVELOPMENT, Environment.QA})
"""Spec section 5: a Developer deploys to these; Staging and Production take an Admin."""


class Credential(StrEnum):
    """What proved who calls."""

    DEVELOPMENT = "development"
    SESSION = "session"
    SERVICE = "service"
    OIDC = "oidc"


caller_address: ContextVar[str] = ContextVar("hotswap_caller_address", default="")
"""Where the request at hand came from (api.origin sets it)."""


@dataclass(frozen=True, slots=True)
class Actor:
    user: str
    roles: frozenset[Role]
    trace_id: str = ""
    tenants: frozenset[str] = frozenset()
    """Of a TenantOwner: whose they are."""
    environments: frozenset[Environment] = frozenset()
    """Where this credential reaches; empty: everywhere."""
    credential: Credential = Credential.DEVELOPMENT
    session_id: str = ""

    def has(self, *wanted: Role) -> bool:
        return bool(self.roles & set(wanted))

    def ordered_roles(self) -> tuple[Role, ...]:
        """For messages and rows, which want the same order every time."""
        return tuple(role for role in Role if role in self.roles)

    def require_deployer(self, environment: Environment) -> None:
        """Raises Forbidden unless this person may move `environment` from one version to another."""
        self.require_reach(environment)
        if Role.ADMIN in self.roles or (Role.DEVELOPER in self.roles and environment in OPEN_TO_DEVELOPERS):
            return
        raise Forbidden(
            f"{self.user} ({names(self.roles)}) may not deploy to {environment}: "
            "a Developer may deploy to Development and QA, an Admin everywhere"
        )

    def require_reach(self, environment: Environment) -> None:
        """Raises Forbidden when the credential was made for other environments."""
        if self.environments and environment not in self.environments:
            listed = ", ".join(sorted(self.environments))
            raise Forbidden(f"this token of {self.user} reaches {listed} only, not {environment}")

    def require_tenant(self, tenant: str) -> None:
        """Raises Forbidden unless the tenant is theirs, or they are an Admin. Says nothing about the tenant."""
        if Role.ADMIN in self.roles or (Role.TENANT_OWNER in self.roles and tenant in self.tenants):
            return
        raise Forbidden(f"{self.user} ({names(self.roles)}) may not act for this tenant: that takes its TenantOwner")

    def require_freeze_override(self) -> None:
        """Raises Forbidden unless this person may let a deployment through a freeze."""
        if Role.ADMIN not in self.roles:
            raise Forbidden(f"{self.user} ({names(self.roles)}) may not override a freeze: that takes an Admin")


def names(roles: Iterable[Role]) -> str:
    held = set(roles)
    return ", ".join(str(role) for role in Role if role in held) or "no role"
