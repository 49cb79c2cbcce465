from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.residency.decisions import DecisionKind
from gemd.v1 import decision_pb2
from tests.support.daemon_says import decision

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
