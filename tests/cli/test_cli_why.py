from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.residency.decisions import DecisionKind
from gemd.v1 import decision_pb2
from tests.support.daemon_says import decision, way_decision

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside


def test_why_shows_what_was_decided_and_for_which_reasons(
    gemctl: Gemctl, daemon: FakeDaemon
) -> None:
    """Newest first; what has not taken effect yet has no figures of afterwards."""
    daemon.script.decisions = [decision(2, confirmed=False), decision(1)]
    done = gemctl("why", TZ="UTC0")
    assert (done.returncode, done.stderr) == (0, "")
    common = [
        "1971-01-01 00:00:00  evict  unload m for n: it frees 1.0 GiB",
        "  why: nobody used it for 30 s",
        "  not: o (cost 2.50): o was dearer",
        "  not: p: p is pinned",
    ]
    assert done.stdout.splitlines() == [
        *common,
        "  memory: cpu 2.0 GiB of 4.0 GiB held",
        *common,
        "  memory: cpu 2.0 GiB -> 1.0 GiB of 4.0 GiB held",
        "  took: 350 ms",
    ]


def test_why_asks_for_what_was_named(inside: Inside, daemon: FakeDaemon) -> None:
    """A model, kinds, a number; or everything."""
    assert inside("why", "m", "--kind", "evict", "--kind", "LOAD", "--limit", "3").returncode == 0
    assert inside("why", "--limit", "0").returncode == 0
    named, everything = daemon.asked("Explain")
    assert (named.model, named.page_size) == ("m", 3)
    assert list(named.kinds) == [
        decision_pb2.Decision.KIND_EVICT,
        decision_pb2.Decision.KIND_LOAD,
    ]
    assert (everything.WhichOneof("subject"), everything.page_size) == (None, 1000)
    # Requests come so often that nothing else would be left to see.
    assert decision_pb2.Decision.KIND_ROUTE not in everything.kinds
    assert set(everything.kinds) == set(decision_pb2.Decision.Kind.values()) - {
        decision_pb2.Decision.KIND_UNSPECIFIED,
        decision_pb2.Decision.KIND_ROUTE,
    }


@pytest.mark.parametrize("kind", DecisionKind)
def test_every_kind_of_the_daemon_can_be_asked_for(
    inside: Inside, daemon: FakeDaemon, kind: DecisionKind
) -> None:
    """None that residency decides is missing from the choice."""
    assert inside("why", "--kind", kind.value.lower()).returncode == 0


def test_why_shows_no_more_than_the_limit(inside: Inside, daemon: FakeDaemon) -> None:
    """The newest ones."""
    daemon.script.decisions = [decision(number) for number in (3, 2, 1)]
    shown = json.loads(inside("why", "--limit", "2", "--json").stdout)
    assert [one["sequence"] for one in shown["decisions"]] == [3, 2]


def test_why_as_json_is_the_message(inside: Inside, daemon: FakeDaemon) -> None:
    """One document with proto field names, sizes as numbers."""
    daemon.script.decisions = [decision(7)]
    (shown,) = json.loads(inside("why", "--json").stdout)["decisions"]
    assert (shown["sequence"], shown["kind"], shown["model"]) == (7, "KIND_EVICT", "models/m")
    assert shown["memory"][0]["after"]["ours_bytes"] == 2**30
    assert shown["reasons"][0]["metadata"] == {"idle_seconds": "30.000"}
    assert (shown["effect_duration"], shown["inputs"]) == ("0.350s", {"loss_seconds": 0.5})


def test_why_says_that_nothing_was_decided(inside: Inside, daemon: FakeDaemon) -> None:
    """To whoever reads along; data is what was found, which is nothing."""
    done = inside("why")
    assert (done.returncode, done.stdout) == (Exit.OK, "")
    assert done.stderr == "the daemon remembers no such decision\n"
    empty = inside("why", "--json")
    assert (json.loads(empty.stdout), empty.stderr) == ({"decisions": []}, "")


def test_decisions_stand_out_on_a_terminal(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Unless NO_COLOR is set; what a summary holds never steers the terminal."""
    daemon.script.decisions = [decision()]
    daemon.script.decisions[0].summary = "load \x1b[2Jm"
    _, seen = gemctl.on_terminal("why", TZ="UTC0")
    assert seen.startswith("\x1b[1m1971-01-01 00:00:00  evict  load \u241b[2Jm\x1b[0m\n  why: ")
    _, plain = gemctl.on_terminal("why", TZ="UTC0", NO_COLOR="1")
    assert "\x1b" not in plain


MADE_HERE = "0123456789abcdef"
UUID = "3F2504E0-4F89-41D3-9A0C-0305E82C3301"


@pytest.mark.parametrize("request_id", [MADE_HERE, UUID])
def test_a_request_is_asked_for_by_its_id(
    inside: Inside, daemon: FakeDaemon, request_id: str
) -> None:
    """The daemon's own ids and UUIDs; any decision about it, its way included."""
    assert inside("why", request_id).returncode == 0
    (asked,) = daemon.asked("Explain")
    assert (asked.request_id, list(asked.kinds)) == (request_id, [])


def test_a_models_name_is_no_request(inside: Inside, daemon: FakeDaemon) -> None:
    """Though it may be all digits and letters from a to f."""
    inside("why", "abcdef0123")
    assert daemon.asked("Explain")[0].WhichOneof("subject") == "model"


def test_the_numbers_of_a_request_are_shown(inside: Inside, daemon: FakeDaemon) -> None:
    """The ways with what each would have taken and risked, and what that was computed from."""
    daemon.script.decisions = [way_decision(MADE_HERE)]
    shown = inside("why", MADE_HERE, TZ="UTC0").stdout.splitlines()
    assert shown == [
        "1971-01-01 00:00:00  route  diffuser drafts and strong checks",
        "  why: it is expected after 0.6 s",
        f"  request: {MADE_HERE}",
        "  WAY     LATENCY  LOSS  COST  WHY NOT",
        "  DRAFT    0.40 s  0.12  1.60  it costs more",
        "  DIRECT        -     -     -  it would take too long",
        "  numbers:",
        "    draft_s 0.4  limit 0.35  risk 0.1235",
    ]


def test_the_way_that_was_taken_is_priced_too(inside: Inside, daemon: FakeDaemon) -> None:
    """And a reason that ruled the others out is said once."""
    made = way_decision(MADE_HERE)
    made.summary = made.reasons[0].message
    figures = {"way": "DRAFT_AND_CHECK", "latency_s": "0.6", "loss": "0.02", "cost": "0.7"}
    made.reasons[0].metadata.update(figures)
    made.alternatives[0].reason.message = f"FEW_DRAFTS: {made.summary}"
    daemon.script.decisions = [made]
    shown = inside("why", MADE_HERE).stdout
    assert shown.count(made.summary) == 1
    assert [line.split() for line in shown.splitlines()[3:5]] == [
        ["DRAFT_AND_CHECK", "0.60", "s", "0.02", "0.70", "taken"],
        ["DRAFT", "0.40", "s", "0.12", "1.60", "FEW_DRAFTS"],
    ]


def test_many_numbers_stay_within_the_terminal(inside: Inside, daemon: FakeDaemon) -> None:
    """And a name stays beside its number."""
    daemon.script.decisions = [way_decision(MADE_HERE)]
    for number in range(20):
        daemon.script.decisions[0].inputs[f"signal_{number}"] = number
    _, _, numbers = inside("why", MADE_HERE).stdout.partition("  numbers:\n")
    lines = numbers.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) > 1
    assert all(len(line.split()) % 2 == 0 for line in lines)


def test_the_last_request_needs_no_id(inside: Inside, daemon: FakeDaemon) -> None:
    """It is the newest one that was given its way."""
    daemon.script.decisions = [way_decision(MADE_HERE)]
    assert "diffuser drafts" in inside("why", "--last").stdout
    newest, about = daemon.asked("Explain")
    assert (list(newest.kinds), newest.page_size) == ([decision_pb2.Decision.KIND_ROUTE], 1)
    assert about.request_id == MADE_HERE
    daemon.script.decisions = []
    none = inside("why", "--last")
    assert none.returncode == Exit.NOT_FOUND
    assert "no request that was given its way" in none.stderr
    assert inside("why", "--last", "m").returncode == Exit.USAGE
