"""The README is true: its commands are run, its tables are compared with the program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gemd.config import Settings
from tests.support.desktop import desktop
from tests.support.gemctl import Gemctl

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading: str, language: str = "sh") -> str:
    """The first code block of a language under a heading."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, f"no {language} block under {heading}"
    return found[1].strip()


def commands(text: str) -> list[list[str]]:
    """Its `gemctl` command lines, without comments and pipes."""
    lines = [line.split("#")[0] for line in text.splitlines()]
    parts = [shlex.split(part) for line in lines for part in line.split("|")]
    return [part for part in parts if part and part[0].endswith("gemctl")]


def test_the_main_command_ends_with_the_answer(tmp_path: Path) -> None:
    """Its program part, in this environment: no daemon, no model, no settings before it.

    The daemon starts, the model is fetched and verified, and the answer names Paris.
    """
    *_, program = block("Try it").split("&&")
    (arguments,) = commands(program)
    gemctl = Gemctl({**os.environ, "HOME": str(tmp_path), "GEMD_THREADS": "1"})
    try:
        done = gemctl(*arguments[1:])
        assert done.returncode == 0, done.stderr
        assert block("Try it", "text") == done.stdout.strip()
        assert "Paris" in done.stdout
    finally:
        gemctl("stop")


def test_ci_calls_the_test_command() -> None:
    """What a newcomer types is what CI runs, on a clean clone."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert f"exec {block('Work on it')}" == ci.splitlines()[-1]
    assert (ROOT / "tests" / "check").exists()


def test_the_settings_table_is_the_programs_own() -> None:
    """Every setting with its default, meaning and accepted values, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    expected = [
        (d.key, f"`{d.default}`" if d.default else "", d.meaning, d.accepts)
        for d in Settings.describe()
    ]

    assert expected == [(key, default.strip(), *rest) for key, default, *rest in rows]


@pytest.mark.parametrize("command", commands(block("From the command line")), ids=" ".join)
def test_every_documented_command_and_flag_exists(command: list[str], tmp_path: Path) -> None:
    """The help of the command knows each flag that the page uses."""
    gemctl = Gemctl({**os.environ, "HOME": str(tmp_path)})
    words = [word for word in command[1:] if re.fullmatch(r"[a-z]+", word)]
    path = words[:2] if words[0] == "config" else words[:1]
    done = gemctl(*path, "--help")

    assert done.returncode == 0, done.stderr
    for flag in [word for word in command if word.startswith("--")]:
        assert flag in done.stdout


def test_the_python_example_prints_the_answer(smollm2: Path, tmp_path: Path) -> None:
    """As an app author would paste it."""
    example = tmp_path / "example.py"
    example.write_text(block("For authors of apps", "python"))
    store = next(parent for parent in smollm2.parents if (parent / "manifests").is_dir())
    with desktop(store) as running:
        done = subprocess.run(
            [sys.executable, str(example)],
            env={**running.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of what is committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    target = tmp_path / "gemd"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    return target


def run_literally(command: str, clone: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Type a command of the README into a shell in the clone."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=clone,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_main_command_in_a_fresh_clone_and_environment(clone: Path, tmp_path: Path) -> None:
    """The literal command, from nothing to the answer."""
    done = run_literally(block("Try it"), clone, tmp_path)
    run_literally(".venv/bin/gemctl stop", clone, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_test_command_in_a_fresh_clone_and_environment(clone: Path, tmp_path: Path) -> None:
    """The default suite leaves the slow tests out, so this never runs itself."""
    done = run_literally(block("Work on it"), clone, tmp_path)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
