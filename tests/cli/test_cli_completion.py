"""What `gemctl` answers a shell that completes; the shells themselves are in another module."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.catalog.quantizations import known_quantizations
from gemd.catalog.values import ID_PATTERN
from gemd.cli import names
from gemd.cli.app import COMMANDS, gemctl
from gemd.cli.completing import possibilities
from gemd.cli.engine import _BACKENDS
from gemd.cli.shells import SCRIPTS, script
from gemd.doctor.checks import CHECKS
from tests.support.gemctl import COMMAND, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = ("$(touch x)", "a b", "`id`", "a;b", "a\nb", "\x1b]0;t\x07", "a\u202eb", "..", "A", "é")
"""What somebody may call a file; none is the name of anything of ours."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home with a profile and a variant of one's own, and names that should not be there."""
    profiles = tmp_path / ".config" / "gemd" / "models"
    profiles.mkdir(parents=True)
    (profiles / "mine.toml").write_text('id = "mine"\n[[variants]]\nid = "q8"\n')
    for number, name in enumerate(HOSTILE):
        text = f"id = {json.dumps(name)}\n[[variants]]\nid = {json.dumps(name)}\n"
        (profiles / f"{number}.toml").write_text(text)
    (profiles / "broken.toml").write_text("id = [")
    (profiles / "deep.toml").write_text("id = " + "[" * 10_000)
    (profiles / "long.toml").write_text("id = " + "9" * 5000)
    manifests = tmp_path / ".cache" / "gemd" / "models" / "manifests"
    hostile = [name for name in HOSTILE if name != ".."]
    for model in ("mine", *hostile):
        (manifests / model).mkdir(parents=True)
        for variant in ("q4-local", *hostile):
            (manifests / model / f"{variant}.json").touch()
    operations = tmp_path / ".local" / "state" / "gemd" / "operations"
    operations.mkdir(parents=True)
    for name in ("a" * 32, "b" * 32, "$(touch x)", "lock"):
        (operations / f"{name}.json").touch()
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}


def offered(environ: dict[str, str], *words: str, shell: str = "zsh") -> list[str]:
    """What stands for the last word, without its help."""
    lines = possibilities(shell, list(words), environ)
    return [line.removeprefix("plain,").partition("\t")[0] for line in lines]


@pytest.mark.parametrize(
    "words,expected",
    [
        (["pull", "smo"], ["smollm2-135m"]),
        (["pull", "mine"], ["mine"]),
        (["pull", "mine:"], ["mine:q4-local", "mine:q8"]),
        (["rm", "mine:q8"], ["mine:q8"]),
        (["run", "--model", "mi"], ["mine", "file,"]),
        (["run", "-m", "mine:q8"], ["mine:q8"]),
        (["run", "-m", "nobody:q"], ["file,"]),
        (["run", "--model=mi"], ["mine", "file,"]),
        (["run", "--model=mine:q4"], ["mine:q4-local"]),
        (["run", "-m", "./mi"], ["file,"]),
        (["run", "-m", "~/mi"], ["file,"]),
        (["run", "-m", "/mi"], ["file,"]),
        (["load", "mi"], ["mine", "file,"]),
        (["unload", "mi"], ["mine", "file,"]),
        (["pin", "mi"], ["mine", "file,"]),
        (["lease", "mi"], ["mine", "file,"]),
        (["verify", "mi"], ["mine", "file,"]),
        (["plan", "mi"], ["mine", "file,"]),
        (["why", "mi"], ["mine", "file,"]),
        (["quantize", "mi"], ["mine", "file,"]),
        (["batch", "jobs.jsonl", "--model", "mi"], ["mine", "file,"]),
        (["pull", "mine", "--variant", ""], ["q4-local", "q8"]),
        (["rm", "mine:q8", "--variant", "q8"], ["q8"]),
        (["verify", "--variant", ""], []),
        (["verify", "mine", "--variant", "q4"], ["q4-local"]),
        (["plan", "mine", "--variant", "q4"], ["q4-local"]),
        (["quantize", "mine", "--from", "q8"], ["q8"]),
        (["plan", "--on", "m4-m"], ["m4-max-48gb", "file,"]),
        (["quantize", "x", "--to", "NV"], ["NVFP4"]),
        (["quantize", "x", "--to", "nv"], ["nvfp4"]),
        (["quantize", "x", "--imatrix", ""], ["file,"]),
        (["run", "--fill", ""], ["file,"]),
        (["batch", ""], ["file,"]),
        (["batch", "a", "-o", ""], ["file,"]),
        (["--socket", ""], ["file,"]),
        (["run", "--mode", "be"], ["best"]),
        (["why", "--kind", "ev"], ["evict"]),
        (["events", "--type", "dec"], ["decision"]),
        (["pull", "x", "--source", "h"], ["hub"]),
        (["engine", "remove", "vu"], ["vulkan"]),
        (["engine", "verify", "vu"], ["vulkan"]),
        (["engine", "install", "--backend", "au"], ["auto"]),
        (["doctor", "disk"], ["disk-space"]),
        (["doctor", "socket", "disk"], ["disk-space"]),
        (["ops", "cancel", "a"], ["a" * 32]),
        (["ops", "watch", "operations/a"], ["operations/" + "a" * 32]),
        (["ops", "ca"], ["cancel"]),
        (["comp"], ["completion"]),
        (["completion", "z"], ["zsh"]),
        (["--soc"], ["--socket"]),
        (["run", "--tier", "x"], []),
        (["frobnicate", "x"], []),
        (["run", "hi", ">", ""], ["file,"]),
        (["run", "hi", ">", "out", "-m", "min"], ["mine", "file,"]),
        (["pull", "<", "in", "min"], ["mine"]),
        (["run", "$(reboot)", "`id`", "-m", "min"], ["mine", "file,"]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value, list) else "nothing",
)
def test_what_may_stand_there_is_offered(
    environ: dict[str, str], words: list[str], expected: list[str]
) -> None:
    """Names from the disk wherever one may be given, and files wherever those may."""
    assert offered(environ, *words) == expected


def test_names_are_only_what_could_be_one(environ: dict[str, str]) -> None:
    """For the conversation too, which completes without a shell and without its care."""
    known = names.Names(environ)
    assert "mine" in known.models("")
    assert known.variants("mine") == ["q4-local", "q8"]
    assert sorted(known.operations()) == ["a" * 32, "b" * 32]
    for each in known.models(""):
        assert re.fullmatch(ID_PATTERN, each)


@pytest.mark.parametrize(
    "broken",
    [
        {"GEMD_CONFIG": "relative.toml"},
        {"GEMD_STORE_DIR": "~nobody-of-that-name/x"},
        {"GEMD_STORE_DIR": "/dev/null"},
        {"HOME": "/nowhere"},
    ],
    ids=str,
)
def test_what_cannot_be_read_has_no_names(environ: dict[str, str], broken: dict[str, str]) -> None:
    """And the names that are shipped are there all the same."""
    known = names.Names({**environ, **broken})
    assert known.models("smollm2") == ["smollm2-135m"]
    assert known.models("nobody:") == []
    assert "rtx-4090-24gb" in known.machines()
    assert isinstance(known.operations(), list)


def _parameters(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from _parameters(inner, (*path, name))
    for parameter in command.params:
        yield path, parameter


def _positions() -> list[tuple[str, ...]]:
    """Words before each place of a command line where something may be completed."""
    return [
        path if isinstance(parameter, click.Argument) else (*path, parameter.opts[0])
        for path, parameter in _parameters(gemctl, ())
        if not getattr(parameter, "is_flag", False)
    ]


@pytest.mark.parametrize("words", _positions(), ids=" ".join)
def test_no_hostile_name_is_offered(environ: dict[str, str], words: tuple[str, ...]) -> None:
    """Whatever lies on the disk: what is offered means nothing to a shell or a terminal."""
    for begin in ("", "a", "$", "."):
        for each in offered(environ, *words, begin):
            assert each == "file," or re.fullmatch(r"[A-Za-z0-9._:/-]+", each, re.ASCII)
            assert each not in HOSTILE


@pytest.mark.parametrize(
    "path,parameter",
    [pytest.param(p, q, id=f"{' '.join(p)} {q.name}") for p, q in _parameters(gemctl, ())],
)
def test_every_model_is_completed(path: tuple[str, ...], parameter: click.Parameter) -> None:
    """No command can be added whose MODEL or FILE the shell knows nothing of."""
    metavar = parameter.metavar or ""
    if re.search(r"MODEL|VARIANT|FILE|PATH|OUT", metavar):
        assert parameter._custom_shell_complete or isinstance(parameter.type, click.Path)


@pytest.mark.parametrize(
    "line,ending,expected",
    [
        ("gemctl pull smo", "smo", ["smollm2-135m"]),
        ("gemctl pull mine:q", "q", ["q4-local", "q8"]),
        ("gemctl pull mine:", "", ["q4-local", "q8"]),
        ('gemctl pull "mine:q', "mine:q", ["mine:q4-local", "mine:q8"]),
        ("gemctl pull 'mine:q", "mine:q", ["mine:q4-local", "mine:q8"]),
        (r"gemctl pull mine\:q", r"mine\:q", ["mine:q4-local", "mine:q8"]),
        ("gemctl run --model=mine:q8", "q8", ["q8"]),
        ("gemctl run --mode=be", "be", ["best"]),
        ("gemctl run --mode ", "", ["fast", "balanced", "best", "exact"]),
        ("A=1 B+=2 /x/gemctl pull smo", "smo", ["smollm2-135m"]),
        ('gemctl run "two words" --mode be', "be", ["best"]),
        ("gemctl run it\\'s --mode be", "be", ["best"]),
        ("gemctl run 'open --mode be", "be", []),
        ("gemctl run hi 2> ", "", ["file,"]),
        ("gemctl pull", "pull", ["pull"]),
        ("gemctl ", "", list(COMMANDS)),
        ("gemctl", "gemctl", list(COMMANDS)),
    ],
)
def test_the_line_of_bash_is_taken_apart(
    environ: dict[str, str], line: str, ending: str, expected: list[str]
) -> None:
    """It breaks words at colons; what stands before one is not written again."""
    assert offered(environ, ending, line, shell="bash") == expected


@given(line=st.text(), ending=st.text())
def test_no_line_is_too_strange(line: str, ending: str) -> None:
    """Whatever is typed, there is an answer, and each line of it is one."""
    for each in possibilities("bash", [ending, f"gemctl {line}"], {"HOME": "/nowhere"}):
        assert each == "file," or each.startswith("plain,")
        assert "\n" not in each


def test_fish_gets_the_whole_word(environ: dict[str, str]) -> None:
    """With what stands before the sign: it knows nothing of our options."""
    assert offered(environ, "run", "--mode=be", shell="fish") == ["--mode=best"]


def test_help_stands_beside_commands_and_options(environ: dict[str, str]) -> None:
    """For shells that show it; bash would take it for a part of the word."""
    assert list(possibilities("zsh", ["pul"], environ)) == [
        "plain,pull\tFetch MODEL and verify it."
    ]
    assert list(possibilities("bash", ["pul", "gemctl pul"], environ)) == ["plain,pull"]


def test_names_written_twice_are_the_same() -> None:
    """Those of rooms that take long to import are written down beside the completion."""
    assert [check.name for check in CHECKS] == list(names.CHECKS)
    assert known_quantizations() == names.QUANTIZATIONS
    assert names._ID.pattern == ID_PATTERN.strip("^$")
    assert set(offered({}, "engine", "remove", "")) == set(_BACKENDS)


def test_nothing_slow_is_imported(tmp_path: Path) -> None:
    """Neither gRPC nor pydantic, whatever is completed: one process asks at every place."""
    program = (
        "import json, os, sys; from gemd.cli.completing import answer\n"
        "for words in json.load(sys.stdin):\n"
        "    code = answer(['--', *words, ''], os.environ)\n"
        "    slow = {'grpc', 'pydantic', 'google.protobuf', 'gemd.v1', 'gemd.client', 'numpy',"
        " 'psutil', 'structlog'} & set(sys.modules)\n"
        "    if code or slow: sys.exit(f'{words}: {code} {slow}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([(), *_positions()]),
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path), "_GEMCTL_COMPLETE": "zsh_complete", "GEMD_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "plain,run\tAnswer PROMPT, or what is piped in.\n" in done.stdout


def test_commands_are_named_without_their_modules(tmp_path: Path) -> None:
    """Each of which would be somebody's time who has pressed Tab."""
    program = (
        "import os, sys; from gemd.cli.completing import answer; answer(['--', ''], os.environ);"
        "sys.exit(str({'gemd.cli.run', 'gemd.cli.doctor'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path), "_GEMCTL_COMPLETE": "zsh_complete", "GEMD_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr.strip() == ""
    assert done.stdout.startswith("plain,run\tAnswer PROMPT, or what is piped in.\n")


def _processor_seconds(command: list[str], environ: dict[str, str]) -> float:
    """What the quickest of some runs took of a processor, whatever else it did meanwhile."""
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environ, cwd=REPOSITORY, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_it_costs_little_more_than_python_itself(environ: dict[str, str]) -> None:
    """Five to eight times `python -c pass`, most of it click; a daemon's client takes thirty."""
    ours = {**environ, "_GEMCTL_COMPLETE": "zsh_complete"}
    nothing = _processor_seconds([sys.executable, "-c", "pass"], environ)
    assert _processor_seconds([*COMMAND, "--", "run", "--model", "smo"], ours) < 15 * nothing


def test_a_mistake_of_ours_says_nothing(inside: object, tmp_path: Path) -> None:
    """A message would come to stand amid what is typed."""
    done = subprocess.run(
        [*COMMAND, "--"],
        env={"HOME": str(tmp_path), "_GEMCTL_COMPLETE": "bash_complete"},
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_calls_the_program_by_its_path(shell: str) -> None:
    """Quoted as that shell wants it, under gemctl's name and that of the program."""
    made = script(shell, ["/it's here/$x/gm"], "gm")
    quoted = {"fish": r"'/it\'s here/$x/gm'"}.get(shell, "'/it'\"'\"'s here/$x/gm'")
    assert f"_GEMCTL_COMPLETE={shell}_complete {quoted} -- " in made
    assert re.search(r"gemctl (--command )?gm\b", made)
