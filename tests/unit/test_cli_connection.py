"""Where the command line finds the api and a token, and what it says when it cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli.connection import find_connection, stack_path
from hotswap.cli.faults import UsageFault

STACK = {
    "apiUrl": "http://127.0.0.1:8080",
    "users": [{"user": "admin", "roles": ["Admin"], "token": "A"}, {"user": "approver", "roles": [], "token": "B"}],
}


def written(directory: Path, content: Any = STACK) -> dict[str, str]:
    (directory / "stack.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return {"HOTSWAP_HOME": str(directory)}


def test_the_stack_file_gives_url_and_the_admins_token(tmp_path: Path) -> None:
    found = find_connection(environment=written(tmp_path))
    assert (found.url, found.token, found.user) == ("http://127.0.0.1:8080", "A", "admin")


def test_without_hotswap_home_it_looks_in_the_working_directory(tmp_path: Path) -> None:
    assert stack_path({}, tmp_path) == tmp_path / ".hotswap" / "stack.json"


def test_as_speaks_with_that_users_token_even_when_another_is_in_the_environment(tmp_path: Path) -> None:
    environment = {**written(tmp_path), "HOTSWAP_TOKEN": "other"}
    assert find_connection(user="approver", environment=environment).token == "B"
    assert find_connection(environment=environment).token == "other"


def test_an_unknown_user_is_told_who_is_known(tmp_path: Path) -> None:
    with pytest.raises(UsageFault) as fault:
        find_connection(user="nobody", environment=written(tmp_path))
    assert "admin, approver" in fault.value.remedy


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    environment = {**written(tmp_path), "HOTSWAP_URL": "http://env:1", "HOTSWAP_TOKEN": "env"}
    found = find_connection("http://flag:2/", "flag", environment=environment)
    assert (found.url, found.token) == ("http://flag:2", "flag")
    found = find_connection(environment=environment)
    assert (found.url, found.token) == ("http://env:1", "env")


def test_the_stacks_token_is_never_sent_to_another_address(tmp_path: Path) -> None:
    assert find_connection("http://elsewhere:1", environment=written(tmp_path)).token is None
    with pytest.raises(UsageFault, match="--as admin"):
        find_connection("http://elsewhere:1", user="admin", environment=written(tmp_path))


def test_the_stacks_own_address_gets_its_token(tmp_path: Path) -> None:
    assert find_connection("http://127.0.0.1:8080/", environment=written(tmp_path)).token == "A"


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UsageFault) as fault:
        find_connection(environment={}, directory=tmp_path)
    assert "hotswap up" in fault.value.remedy
    assert fault.value.exit_code == 2


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"apiUrl": 3}'])
def test_a_damaged_stack_file_is_told_plainly(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageFault, match=r"stack\.json"):
        find_connection(environment=written(tmp_path, content))


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(UsageFault, match="not an address"):
        find_connection("127.0.0.1:8080", "t", environment={})


def test_looking_again_follows_an_api_that_moved(tmp_path: Path) -> None:
    found = find_connection(environment=written(tmp_path))
    written(tmp_path, {**STACK, "apiUrl": "http://127.0.0.1:9090"})
    assert found.again().url == "http://127.0.0.1:9090"
    (tmp_path / "stack.json").unlink()
    assert found.again().url == "http://127.0.0.1:8080"
