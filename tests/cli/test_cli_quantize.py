"""`gemctl quantize`: what it asks of the daemon, and what it shows of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.cli.quantize import _wrapped
from gemd.cli.text import table
from gemd.v1 import model_pb2, operation_pb2
from tests.support.daemon_says import model, operation

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

QUANTIZE = operation_pb2.Operation.KIND_QUANTIZE


def made() -> operation_pb2.Operation:
    """The last snapshot of one that succeeded."""
    last = operation("SUCCEEDED", current=1000, kind=QUANTIZE)
    last.quantize.variant = "q4_k_m-local"
    last.quantize.size_bytes = 105_000_000
    last.quantize.origin = "someone/f16@0123456"
    last.quantize.checks.add(check="sizes", passed=True, detail="1 file")
    last.quantize.checks.add(
        check="kl-divergence", passed=True, detail="mean", value=0.0698, limit=0.694
    )
    return last


def bf16(size_bytes: int, *, on_disk: bool) -> model_pb2.Model:
    """A model with unquantized weights."""
    found = model("smollm2-135m")
    found.variants.add(id="f16", quantization="F16", size_bytes=size_bytes, on_disk=on_disk)
    return found


def test_every_option_reaches_the_daemon(
    inside: Inside, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """And a path that is relative to where gemctl runs arrives as an absolute one."""
    importance = tmp_path / "i.gguf"
    importance.touch()
    path = str(Path("models/f16.gguf").absolute())
    daemon.script.models[path] = model(path)
    daemon.script.pull = [operation("RUNNING", phase="quantizing", kind=QUANTIZE), made()]
    done = inside(
        "quantize",
        "./models/f16.gguf",
        *("--to", "q4_k_m"),
        *("--variant", "mine"),
        *("--imatrix", str(importance)),
        "--discard-source",
        "--accept-licence",
        "--force",
    )
    assert done.returncode == 0, done.stderr
    (request,) = daemon.asked("QuantizeModel")
    assert request.model == path
    assert request.quantization == "q4_k_m"
    assert request.variant == "mine"
    assert request.importance_matrix == str(importance)
    assert (request.discard_source, request.accept_licence, request.force) == (True, True, True)
    assert request.request_id
    assert daemon.asked("GetModel") == []


@pytest.mark.parametrize("place", [".", ".."])
def test_the_folder_that_one_is_in_is_a_path(
    inside: Inside, daemon: FakeDaemon, place: str
) -> None:
    """A checkpoint is named by its directory, and that may be this one."""
    daemon.script.models[str(Path(place).absolute())] = model("here")
    daemon.script.pull = [made()]
    inside("quantize", place, "--to", "NVFP4", "--yes")
    assert [each.model for each in daemon.asked("QuantizeModel")] == [str(Path(place).absolute())]


def test_the_checks_are_a_table_and_the_rest_is_for_people(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """Figures on standard output; progress, result and what comes next on standard error."""
    daemon.script.pull = [
        operation("RUNNING", phase="quantizing", current=500, kind=QUANTIZE),
        made(),
    ]
    done = inside("quantize", "smollm2-135m", "--to", "Q4_K_M", "--from", "f16", "--dense")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1:] == [
        ["sizes", "passed", "1", "file"],
        ["kl-divergence", "passed", "0.0698", "0.694", "mean"],
    ]
    lines = done.stderr.splitlines()
    assert any(line.startswith("quantizing smollm2-135m   50 %") for line in lines)
    assert lines[-2] == (
        "smollm2-135m:q4_k_m-local is made and on disk (100 MiB, from someone/f16@0123456)"
    )
    assert lines[-1] == "gemctl run --model smollm2-135m:q4_k_m-local 'Why is the sky blue?'"
    (request,) = daemon.asked("QuantizeModel")
    assert (request.source_variant, request.quantize_dense) == ("f16", True)


def test_json_is_the_operation(inside: Inside, daemon: FakeDaemon) -> None:
    """One document with its result."""
    daemon.script.pull = [made()]
    shown = json.loads(inside("quantize", "smollm2-135m", "--to", "Q4_K_M", "--json").stdout)
    assert shown["kind"] == "KIND_QUANTIZE"
    assert [each["check"] for each in shown["quantize"]["checks"]] == ["sizes", "kl-divergence"]


@pytest.mark.parametrize("source", [(), ("--from", "f16")])
def test_a_large_source_needs_a_yes(
    inside: Inside, daemon: FakeDaemon, source: tuple[str, ...]
) -> None:
    """Unless it is here, or small, or was agreed to; without a terminal nobody can be asked."""
    daemon.script.pull = [made()]
    daemon.script.models["smollm2-135m"] = bf16(2_000_000_000, on_disk=False)
    asked = ("quantize", "smollm2-135m", "--to", "Q4_0", *source)
    done = inside(*asked)
    assert done.returncode == Exit.PRECONDITION
    assert "fetching 1.9 GiB of weights that Q4_0 is made from needs a yes" in done.stderr
    assert "gemctl quantize --yes smollm2-135m --to Q4_0" in done.stderr
    assert daemon.asked("QuantizeModel") == []
    assert inside(*asked, "--yes").returncode == 0
    for found in (bf16(2_000_000_000, on_disk=True), bf16(900_000_000, on_disk=False)):
        daemon.script.models["smollm2-135m"] = found
        assert inside(*asked).returncode == 0


def test_the_size_of_weights_that_nothing_runs_is_known(inside: Inside, daemon: FakeDaemon) -> None:
    """Those of Gemma 4, which the daemon lists only once they are on disk."""
    daemon.script.models["gemma4-e2b"] = model("gemma4-e2b")
    done = inside("quantize", "gemma4-e2b", "--to", "IQ4_XS")
    assert done.returncode == Exit.PRECONDITION
    assert "fetching 9.5 GiB of weights" in done.stderr


def test_on_a_terminal_it_asks(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """And takes a no for one."""
    daemon.script.pull = [made()]
    daemon.script.models["smollm2-135m"] = bf16(2_000_000_000, on_disk=False)

    def react(seen: str, typed: object) -> None:
        if seen.endswith("[y/N]: "):
            typed("y\n" if answers.pop() else "n\n")  # type: ignore[operator] # types text

    for yes in (False, True):
        answers = [yes]
        code, seen = gemctl.on_terminal("quantize", "smollm2-135m", "--to", "Q4_0", react=react)
        assert "Fetch them?" in seen
        assert code == (0 if yes else Exit.PRECONDITION)
    assert len(daemon.asked("QuantizeModel")) == 1


def test_what_is_missing_is_a_matter_of_usage(
    inside: Inside, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The type, and an importance matrix that is not there."""
    assert inside("quantize", "smollm2-135m").returncode == Exit.USAGE
    done = inside("quantize", "smollm2-135m", "--to", "Q4_0", "--imatrix", str(tmp_path / "none"))
    assert done.returncode == Exit.USAGE
    assert daemon.asked("QuantizeModel") == []


def test_what_was_made_before_is_said_to_be_there(inside: Inside, daemon: FakeDaemon) -> None:
    """Nothing was made now."""
    last = made()
    last.current_bytes = last.total_bytes = 0
    daemon.script.pull = [last]
    done = inside("quantize", "smollm2-135m", "--to", "Q4_K_M", "--yes")
    assert "smollm2-135m:q4_k_m-local is on disk already (100 MiB" in done.stderr


def test_the_command_that_says_yes_is_the_one_that_was_typed(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """With all its options: one that is left out may leave 50 GB on the disk."""
    daemon.script.models = {"smollm2-135m": bf16(5_000_000_000, on_disk=False)}
    typed = ["--to", "Q4_0", "--from", "f16", "--variant", "mine", "--discard-source", "--force"]
    done = inside("quantize", "smollm2-135m", *typed)
    assert done.returncode == Exit.PRECONDITION
    (line,) = [line for line in done.stderr.splitlines() if "  try: " in line]
    assert line.split()[1:] == ["gemctl", "quantize", "--yes", "smollm2-135m", *typed]
    assert daemon.asked("QuantizeModel") == []


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_what_was_found_is_wrapped_beside_its_check(columns: int) -> None:
    """On a terminal: no line is wider, no word is lost, and the column stays clear."""
    headers = ("check", "", "value", "limit", "found")
    text = "worst of 272 is blk.23.attn_v.weight with 0.0064; means: Q4_K 0.0183, Q5_0 0.0440"
    rows = [
        ("sampled-error", "passed", "0.006413", "0.0108", text),
        ("sizes", "passed", "", "", ""),
    ]
    first, below = _wrapped(headers, rows, columns)
    lines = table(headers, first)
    lines = [lines[1], *below[0].splitlines(), lines[2]]
    assert below[1] == ""
    if columns > 30:
        assert max(map(len, lines)) <= columns
        assert all(line.startswith(" " * 41) for line in lines[1:-1])
    assert " ".join(" ".join(lines[:-1]).split()).endswith(text)
    assert _wrapped(headers, rows, 0)[0] == rows
