"""The live tree and the plain line, from recorded JSON."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from hotswap.cli.output import Output, clean, duration, size
from hotswap.cli.render import commands_for, deployment_tree, expected_line, own_metric_line, status_line
from tests.unit.cli_fake_api import deployment

EVENT = {"sequence": 1, "at": "2026-01-31T12:00:00Z", "kind": "step", "message": "shift 30 % of tenants"}


def drawn(document: dict[str, object], notice: str = "") -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(deployment_tree(document, [EVENT], notice, datetime(2026, 1, 31, 12, 0, 13, tzinfo=UTC)))
    return console.export_text()


def test_the_tree_shows_everything_that_matters() -> None:
    text = drawn(deployment())
    for expected in (
        "phone-format 1.0.0 → 2.0.0",
        "Staging · Canary · InProgress",
        "12 s",
        "step 5/12",
        "observe at 30 %",
        "set 30 %, actual 28.9 % of requests",
        "node-1 Ready · generation 4",
        "2.0.0 Ready · healthy · pid 4711 · 12.0 MiB · 2 in flight · sandbox standard",
        "verdict Pass · 241 requests to the new version, 802 to the old",
        "error-rate",
        "0.0041",
        "0.0001 … 0.031",
        "0.05",
        "0.0025 (n 802)",
        "shift 30 % of tenants",
    ):
        assert expected in text


def test_waiting_for_approval_shows_the_command_to_give() -> None:
    document = deployment("AwaitingApproval", waitingFor="1 approval", verdict=None)
    text = drawn(document)
    assert "waits for 1 approval" in text
    assert "hotswap approve dep_01234567 --as approver" in text
    assert commands_for(document)[0] in text


def test_a_pause_shows_how_to_go_on() -> None:
    text = drawn(deployment("Paused", waitingFor="a person"))
    assert "hotswap resume dep_01234567" in text
    assert "hotswap abort dep_01234567" in text


def test_an_end_says_why_and_what_to_do() -> None:
    text = drawn(deployment("Failed", outcomeReason="node-2 is gone", whatToDo="check the nodes"))
    assert "because node-2 is gone" in text
    assert "what to do check the nodes" in text


def test_a_sick_host_and_a_silent_node_are_seen() -> None:
    document = deployment()
    document["nodes"][0]["hosts"][0].update(probeFailures=2, lastError="probe: boom")
    document["verdict"]["nodesSilent"] = ["node-3"]
    text = drawn(document)
    assert "2 probes failed in a row" in text
    assert "probe: boom" in text
    assert "no figures from node-3" in text


def test_an_evicted_host_is_no_sick_one() -> None:
    document = deployment()
    document["nodes"][0]["hosts"][0].update(state="Evicted", pid=None)
    text = drawn(document)
    assert "Evicted" in text
    assert "loads at the next request" in text


@pytest.mark.parametrize("document", [{}, {"status": "Pending"}, deployment(nodes=[], verdict=None, stepCount=0)])
def test_a_deployment_that_has_not_begun_can_be_drawn(document: dict[str, object]) -> None:
    assert drawn(document)
    assert status_line(document)


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]"
    text = drawn(deployment(outcomeReason=evil, waitingFor=evil, stepTitle=evil), notice="")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold red]x[/]" in text
    assert "\x1b" not in status_line(deployment(outcomeReason=evil))


def test_a_low_terminal_gets_hosts_in_one_line_and_only_metrics_that_do_not_pass() -> None:
    document = deployment()
    slow = {**document["verdict"]["metrics"][0], "metric": "latency-p99", "outcome": "Inconclusive"}
    document["verdict"]["metrics"].append(slow)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(deployment_tree(document, [EVENT], compact=True))
    text = console.export_text()
    assert "node-1 Ready · generation 4 · 2.0.0 healthy" in text
    assert "pid" not in text
    assert "latency-p99" in text
    assert "error-rate" not in text


def test_an_own_metric_shows_whom_it_asked_what_and_what_came_back() -> None:
    document = deployment()
    document["verdict"]["metrics"].append(
        {
            "metric": "checkout-p99",
            "outcome": "Error",
            "provider": "prometheus",
            "query": 'f(x{v="2.0.0"}[90s])',
            "raw": '{"status":"success"}\x1b[2J',
            "threshold": 1.5,
        }
    )
    text = drawn(document)
    assert 'checkout-p99 · prometheus · f(x{v="2.0.0"}[90s]) → {"status":"success"}' in text
    assert "Error" in text
    assert "\x1b" not in text


def test_a_plan_says_what_an_observation_finds_and_what_is_asked() -> None:
    samples = [
        {"metric": "error-rate-vs-baseline", "regression": "errors 1 % -> 3 %", "requests": 16_000},
        {"metric": "latency-vs-baseline", "regression": "p99 x 2", "requests": None},
        {"metric": "error-rate", "regression": "errors 10 %", "requests": 1_100},
    ]
    line = expected_line({"kind": "observe", "expectedSample": samples})
    assert line == "finds errors 1 % -> 3 % within 16,000, errors 10 % within 1,100 requests of the new version"
    assert expected_line({"kind": "promote-version"}) == ""
    metric = {"name": "m", "operator": "<=", "threshold": 1.5, "compare": "baseline-ratio", "provider": "webhook"}
    assert own_metric_line({**metric, "query": "", "url": "https://qa/ok"}) == (
        "m: good is <= 1.5 (baseline-ratio), webhook https://qa/ok"
    )


def test_the_plain_line_holds_status_step_weights_and_verdict() -> None:
    line = status_line(deployment())
    assert line == (
        "phone-format 1.0.0 -> 2.0.0 in Staging | InProgress | step 5/12 observe at 30 % | "
        "tenants: set 30 %, actual 28.9 % of requests | verdict Pass (n 241)"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (75, "1 min 15 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_said_in_fitting_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_sizes_are_said_in_fitting_units() -> None:
    assert [size(100), size(2048), size(3 * 1024 * 1024)] == ["100 B", "2.0 KiB", "3.0 MiB"]


def test_a_piped_table_is_tab_separated_and_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("a", "b"), [("x" * 300, "two\nlines")], {}, "nothing")
    assert capsys.readouterr().out == f"{'x' * 300}\ttwo lines\n"
    assert clean(None) == ""
