"""The command line's logins and accounts against the real facade, served over HTTP on in-memory twins."""

import io
import json
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from hotswap.cli.connection import find_connection
from hotswap.cli.faults import ApiError, UsageFault
from hotswap.cli.main import app
from hotswap.cli.profiles import Profile, Profiles
from tests.http.people import PASSWORD
from tests.http.site import API, make_site

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A facade with one user, ada."""
    made = make_site(tmp_path_factory.mktemp("site"))
    server = uvicorn.Server(uvicorn.Config(made.app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    admin = {"Authorization": "Bearer token-of-admin"}
    body = {"name": "ada", "roles": ["Admin"], "password": PASSWORD}
    assert httpx.post(f"{address}{API}/users", json=body, headers=admin, trust_env=False).status_code == 201
    yield address
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOTSWAP_URL", "HOTSWAP_TOKEN", "HOTSWAP_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "no-stack"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; exit code, what it said, and its hints and faults. `typed` is its standard input."""

    def once(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            app(args=list(arguments), prog_name="hotswap")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return once


@pytest.fixture
def ada(run: Run, url: str) -> Run:
    code, said, errors = run("login", "--url", url, "--user", "ada", "--password-stdin", typed=f"{PASSWORD}\n")
    assert code == 0, errors
    assert said == f"logged in at {url} as ada (Admin), profile default\n"
    return run


def profiles(home: Path) -> Profiles:
    return Profiles(home / "config" / "hotswap" / "profiles.json")


def test_a_login_is_remembered_for_its_owner_alone(ada: Run, home: Path, url: str) -> None:
    file = profiles(home).path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert PASSWORD not in file.read_text()
    assert ada("whoami")[:2] == (0, f"ada (Admin) at {url}\n")
    assert json.loads(ada("whoami", "--json")[1])["credential"] == "session"


def test_a_logout_ends_it_here_and_there(ada: Run, home: Path, url: str) -> None:
    token = profiles(home).find().token  # type: ignore[union-attr]
    assert ada("logout")[0] == 0
    assert profiles(home).names() == []
    code, _, errors = ada("whoami", "--url", url, "--token", token)
    assert code == 1
    assert "hotswap login" in errors


def test_a_wrong_password_is_told_and_nothing_is_remembered(run: Run, home: Path, url: str) -> None:
    code, _, errors = run("login", "--url", url, "--user", "eve", "--password-stdin", typed="wrong\n")
    assert code == 1
    assert "user or password is wrong" in errors
    assert not profiles(home).path.exists()
    code, _, errors = run("login", "--url", url, "--user", "ada")
    assert (code, "--password-stdin" in errors) == (2, True)


def test_a_token_that_is_about_to_expire_is_renewed_once_by_many_commands(ada: Run, home: Path) -> None:
    file = profiles(home)
    old = file.find()
    assert old is not None
    file.save(replace(old, expires_at=(datetime.now(UTC) + timedelta(seconds=5)).isoformat()))
    with ThreadPoolExecutor(8) as pool:
        renewed = set(pool.map(lambda _: file.renew(file.find()), range(8)))  # type: ignore[arg-type]
    assert len(renewed) == 1, "a second refresh with the same token would look like theft"
    assert renewed.pop().refresh_token != old.refresh_token
    file.save(replace(old, expires_at="nonsense"))
    assert ada("whoami")[0] == 0
    assert not file.find().is_due(datetime.now(UTC))  # type: ignore[union-attr]


def test_a_login_that_has_ended_says_log_in(ada: Run, home: Path) -> None:
    file = profiles(home)
    known = file.find()
    assert known is not None
    file.save(replace(known, refresh_token="ses_" + "0" * 32 + ".x", expires_at=datetime.now(UTC).isoformat()))
    code, _, errors = ada("whoami")
    assert code == 1
    assert "hotswap login" in errors
    with pytest.raises(ApiError):
        file.renew(file.find())  # type: ignore[arg-type]
    assert ada("logout")[0] == 0


def test_a_given_token_is_tried_before_it_is_remembered(run: Run, home: Path, url: str) -> None:
    arguments = ("login", "--url", url, "--profile", "ci", "--with-token")
    assert run(*arguments, typed="wrong\n")[0] == 1
    assert profiles(home).names() == []
    assert run(*arguments, typed="token-of-viewer\n")[0] == 0
    assert "viewer (Viewer)" in run("whoami", "--profile", "ci")[1]
    assert run("logout", "--profile", "ci")[0] == 0, "a token without a login is forgotten all the same"


def test_users_are_managed(ada: Run) -> None:
    code, said, errors = ada("user", "create", "eve", "-r", "tenantowner", "-t", "acme")
    assert code == 0, errors
    password = said.strip().rpartition(" ")[2]
    assert "told once" in errors
    assert ada("user", "set-roles", "eve", "Viewer", "Approver")[0] == 0
    assert ada("user", "set-tenants", "eve", "blue")[0] == 0
    assert ada("user", "disable", "eve")[0] == 0
    assert ada("user", "list")[1].splitlines() == ["ada\tAdmin\t\t\t", "eve\tApprover, Viewer\tblue\tdisabled\t"]
    assert ada("user", "enable", "eve")[0] == 0
    assert ada("user", "set-password", "eve", "--password-stdin", typed="another long password\n")[0] == 0
    assert password not in ada("user", "list", "--json")[1]
    assert ada("user", "disable", "ada")[0] == 1, "the last Admin stays"
    assert ada("user", "set-roles", "eve", "Boss")[0] == 2


def test_machines_and_tenants_get_tokens_on_a_line_of_their_own(ada: Run, url: str) -> None:
    token = ada("token", "create", "ci", "-r", "developer", "-e", "qa", "--for", "30d")[1].strip()
    assert ada("whoami", "--url", url, "--token", token)[1] == f"service:ci (Developer, in QA) at {url}\n"
    assert token not in ada("token", "list", "--json")[1]
    assert ada("token", "revoke", "ci")[0] == 0
    assert ada("token", "revoke", "ci")[0] == 2, "no token of that name is in use any more"
    assert ada("token", "create", "ci")[0] == 2

    made = ada("tenant", "token", "acme", "--for", "1h", "-p", "invoice", "-e", "qa")
    assert made[1].count(".") == 2
    token_id = made[2].split()[0]
    assert token_id in ada("tenant", "tokens", "acme")[1]
    assert ada("tenant", "revoke-token", "acme", token_id)[0] == 0
    assert "revoked by ada" in ada("tenant", "tokens", "acme")[1]


def test_keys_are_rotated(ada: Run) -> None:
    assert ada("auth", "rotate-keys")[0] == 0
    assert ada("auth", "keys")[1].count("in use") == 2
    assert ada("auth", "rotate-keys", "--revoke")[0] == 2, "ending every login needs a reason"
    assert ada("auth", "rotate-keys", "--revoke", "-m", "incident 9")[0] == 0
    assert ada("whoami")[0] == 1


# -- where the api is ----------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    given = {"XDG_CONFIG_HOME": str(tmp_path), "HOTSWAP_HOME": str(tmp_path / "stack")}
    file = Profiles.of(given)
    assert file is not None
    file.save(Profile("production", "https://hotswap.example", "P", "ada"))
    file.save(Profile("staging", "https://staging.example", "S"))
    return given


def with_stack(environment: dict[str, str]) -> None:
    folder = Path(environment["HOTSWAP_HOME"])
    folder.mkdir()
    stack = {"apiUrl": "http://127.0.0.1:8080", "users": [{"user": "admin", "token": "A"}]}
    (folder / "stack.json").write_text(json.dumps(stack))


def test_without_a_stack_the_current_profile_says_where(environment: dict[str, str]) -> None:
    found = find_connection(environment=environment)
    assert (found.url, found.token) == ("https://staging.example", "S")


def test_a_running_stack_stands_before_the_current_profile_but_not_before_a_named_one(
    environment: dict[str, str],
) -> None:
    with_stack(environment)
    assert find_connection(environment=environment).url == "http://127.0.0.1:8080"
    assert find_connection(environment=environment, profile="production").token == "P"
    named = {**environment, "HOTSWAP_PROFILE": "production"}
    assert find_connection(environment=named).url == "https://hotswap.example"
    assert find_connection(user="admin", environment=named).token == "A"


def test_a_profiles_token_is_sent_to_its_own_address_only(environment: dict[str, str]) -> None:
    assert find_connection("https://hotswap.example/", environment=environment).token == "P"
    assert find_connection("https://elsewhere.example", environment=environment).token is None
    assert find_connection("https://hotswap.example", "mine", environment=environment).token == "mine"


@pytest.mark.parametrize("more", [{"url": "http://x"}, {"token": "t"}, {"user": "admin"}])
def test_a_profile_and_an_address_at_once_are_refused(environment: dict[str, str], more: dict[str, Any]) -> None:
    with pytest.raises(UsageFault, match="--profile"):
        find_connection(environment=environment, profile="production", **more)


def test_an_unknown_profile_names_the_known_ones(environment: dict[str, str]) -> None:
    with pytest.raises(UsageFault) as fault:
        find_connection(environment=environment, profile="qa")
    assert "production, staging" in fault.value.remedy
    (Path(environment["XDG_CONFIG_HOME"]) / "hotswap" / "profiles.json").write_text("{")
    with pytest.raises(UsageFault, match="cannot be read"):
        find_connection(environment=environment, profile="production")


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 64])
def test_a_profile_has_a_plain_name(environment: dict[str, str], name: str) -> None:
    file = Profiles.of(environment)
    assert file is not None
    with pytest.raises(UsageFault):
        file.save(Profile(name, "https://x", "t"))
