"""Logins and tenants' tokens on the live system: from the first Admin's password to a plugin's answer, and back out."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.live import ENVIRONMENT, Live, eventually


async def test_from_the_first_admins_password_to_a_tenants_call_and_out_again(live: Live, tmp_path: Path) -> None:
    plugin = await live.new_plugin("1.0.0")
    assert (await live.deploy(plugin, "1.0.0")).status == "Completed"
    password = (live.stack._data.root / "admin-password").read_text()

    def hotswap(*arguments: str, typed: str = "") -> str:
        """What the command says, as the first Admin logged in under a profile."""
        done = subprocess.run(
            [sys.executable, "-m", "hotswap.cli.main", *arguments],
            input=typed,
            env={"XDG_CONFIG_HOME": str(tmp_path), "HOTSWAP_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    hotswap("login", "--url", live.stack.info["apiUrl"], "--user", "admin", "--password-stdin", typed=password)
    assert hotswap("whoami").startswith("admin (Admin) at ")
    token = hotswap("tenant", "token", "acme", "-p", plugin, "-e", ENVIRONMENT, "--for", "1h")

    async def call(tenant: str, bearer: str = token) -> int:
        url = live.stack.info["nodes"][0]["routerUrl"]
        headers = {"Authorization": f"Bearer {bearer}"}
        async with httpx.AsyncClient(timeout=20, headers=headers, trust_env=False) as client:
            answer = await client.post(f"{url}/invoke/{tenant}/{plugin}/greet", json={"name": "Ada"})
        if answer.status_code == 403:
            assert tenant not in answer.text
        return answer.status_code

    async def gets_in() -> bool:
        return await call("acme") == 200

    await eventually(gets_in, "the node knows the key")
    assert await call("other") == 403
    assert await call("acme", token[:-4] + "AAAA") == 401
    assert (await live.invoke(plugin)).status_code == 200, "the platform's own token stays an option"

    killed = live.stack.kill("postgres")
    assert await call("acme") == 200, "offline: nobody is asked for a request"
    async with asyncio.timeout(60):
        await live.stack.restarted("postgres", killed)

    token_id = hotswap("tenant", "tokens", "acme").split("\t")[0]
    hotswap("tenant", "revoke-token", "acme", token_id)

    async def is_out() -> bool:
        return await call("acme") == 401

    await eventually(is_out, "the node hears of the revocation")
    hotswap("logout")
