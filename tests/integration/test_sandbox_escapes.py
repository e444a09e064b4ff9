"""The sandbox holds: a plugin that tries everything gets nowhere, and an ordinary library notices nothing."""

import os
import platform
from pathlib import Path
from typing import Literal

import pytest

from hotswap.domain.errors import HostFailed
from tests.integration.host_lab import ask, exit_of, launched, spec_of, spec_of_source
from tests.integration.siege import besiege, left_open_by_standard

TIERS = ("standard", "strong")


@pytest.mark.parametrize("tier", TIERS)
async def test_no_attempt_to_escape_succeeds(tier: Literal["standard", "strong"], tmp_path: Path) -> None:
    """Facts that give no hold on anything are another matter: strong hides them, standard leaves open what its docs say."""
    siege = await besiege(tier, tmp_path / "neighbour")
    assert len(siege.tried) > (170 if platform.machine() == "x86_64" else 120)
    assert siege.escaped == []
    assert siege.glimpsed == (left_open_by_standard() if tier == "standard" else [])
    # Refused by the sandbox, not by an accident such as a mistake in the probe.
    assert siege.accidents == {}
    assert siege.unharmed
    # And an ordinary library notices nothing.
    assert siege.allowed == {
        "sqlite": 1,
        "asyncio": "ran",
        "zone": "Europe/Berlin",
        "random": 8,
        "decimal": "0.333",
        "own file": '"""',
        "relative file": '"""',
        "null": 4,
        "thread": True,
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has another calling convention to abuse")
@pytest.mark.parametrize("tier", TIERS)
async def test_a_call_in_another_convention_kills_and_says_so(tier: str) -> None:
    async with launched(spec_of("prober"), tier) as host:
        ended = exit_of(host)
        with pytest.raises(HostFailed, match="SIGSYS"):
            await ask(host, "foreign_call")
        assert "SIGSYS" in await ended


@pytest.mark.parametrize("tier", TIERS)
async def test_a_host_inherits_no_secret_and_nothing_of_the_platform(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTSWAP_POSTGRES__URL", "postgresql://secret")
    async with launched(spec_of("worker"), tier) as host:
        seen = await ask(host, "environment")
    assert set(seen["environment"]) <= {"PATH", "LANG", "MALLOC_ARENA_MAX", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert not any("site-packages" in path for path in seen["path"])
    assert seen["path"][0] == str(spec_of("worker").bundle_dir)
    assert seen["argv"] == ["worker"]


@pytest.mark.parametrize("tier", TIERS)
async def test_a_bundle_may_bring_a_package_named_like_ours(tier: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "vendor" / "hotswap").mkdir(parents=True)
    (folder / "vendor" / "hotswap" / "__init__.py").write_text("whose = 'theirs'", encoding="utf-8")
    source = """
        import hotswap

        class Plugin:
            def who(self, parameters, context):
                return hotswap.whose
    """
    async with launched(spec_of_source(folder, source), tier) as host:
        assert await ask(host, "who") == "theirs"


@pytest.mark.parametrize("tier", TIERS)
async def test_a_ctrl_c_is_not_the_hosts(tier: str) -> None:
    """Zygote and hosts have a session of their own, so that the node drains before they go."""
    async with launched(spec_of("worker"), tier) as host:
        assert os.getsid(host.pid) != os.getsid(0)
