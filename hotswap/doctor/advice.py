"""Check of settings that are valid and still not what production wants."""

from collections.abc import Sequence
from datetime import timedelta

from hotswap.doctor.report import Finding, Severity
from hotswap.doctor.site import Site
from hotswap.domain.deployment import Environment


async def settings(site: Site) -> Sequence[Finding]:
    given = site.settings
    production = given.api.production
    findings = []
    if production and not given.audit.signing_key:
        findings.append(
            _advice(
                Severity.WARNING,
                "HOTSWAP_AUDIT__SIGNING_KEY is not set in a production installation",
                "the audit's checkpoints are not signed: its owner could rewrite it whole, and it can never be truncated",
                "set it on the api: openssl rand -hex 32 (docs/audit.md)",
            )
        )
    if production and Environment.PRODUCTION not in given.signatures.required_in:
        findings.append(
            _advice(
                Severity.NOTE,
                "unsigned versions may run in Production (HOTSWAP_SIGNATURES__REQUIRED_IN)",
                "whoever may upload decides what runs; a signature binds it to a publisher",
                'HOTSWAP_SIGNATURES__REQUIRED_IN=["Production"] on worker and nodes (docs/versions.md)',
            )
        )
    if production and not (given.temporal.tls or _on_this_machine(given.temporal.address)):
        findings.append(
            _advice(
                Severity.WARNING,
                f"{given.temporal.address} is spoken to without TLS (HOTSWAP_TEMPORAL__TLS)",
                "whoever is on the network between can read and command every rollout",
                "serve Temporal with TLS and set HOTSWAP_TEMPORAL__TLS=true, with client certificates or an API key "
                "(docs/temporal.md)",
            )
        )
    if given.auth.key_activation < 3 * given.node.reconcile:
        activation, reconcile = _seconds(given.auth.key_activation), _seconds(given.node.reconcile)
        findings.append(
            _advice(
                Severity.WARNING,
                f"HOTSWAP_AUTH__KEY_ACTIVATION ({activation}) is under three times HOTSWAP_NODE__RECONCILE ({reconcile})",
                "after a rotation a node may refuse tokens whose key it does not know yet",
                f"set HOTSWAP_AUTH__KEY_ACTIVATION to {_seconds(3 * given.node.reconcile)} or more",
            )
        )
    return findings


def _advice(severity: Severity, what: str, why: str, remedy: str) -> Finding:
    return Finding(severity=severity, what=what, why=why, remedy=remedy)


def _on_this_machine(address: str) -> bool:
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
