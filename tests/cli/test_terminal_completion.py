"""Tab in real shells: bash, zsh and fish, with what the user has on disk and with what hurts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.gemctl import REPOSITORY
from tests.support.interactive import STARTS, Shell, interactive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = (
    *("a b.gguf", 'q"uote.gguf', "$(touch pwned).gguf", "`touch pwned`.gguf", "t; touch pwned"),
    *("new\nline.gguf", "\x1b]0;owned\x07x.gguf", "smile.gguf", "sm $(touch pwned)"),
)
"""In the current folder; those that would run something if a shell took them for more than text."""
PROFILES = ("$(touch pwned)", "`touch pwned`", "s\nm", "sm\x1b]0;owned\x07", "smo ; touch pwned")
SOURCE = {
    "bash": 'eval "$({} completion bash)"',
    "zsh": 'eval "$({} completion zsh)"',
    "fish": "{} completion fish | source",
}


@dataclass(frozen=True)
class Typed:
    """A shell that completes `gemctl`, and where it is."""

    shell: Shell
    folder: Path


@pytest.fixture(scope="module", params=list(STARTS))
def typed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Typed]:
    """One shell for all tests of it: `gemctl` is not on its PATH, and its path needs quotes."""
    home = tmp_path_factory.mktemp("home")
    place = home / "it's $here"
    place.mkdir()
    program = place / "gemctl"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from gemd.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    (place / "gm").symlink_to("gemctl")
    folder = home / "work"
    folder.mkdir()
    for name in FILES:
        (folder / name).touch()
    models = home / ".config" / "gemd" / "models"
    models.mkdir(parents=True)
    for number, name in enumerate(PROFILES):
        (models / f"{number}.toml").write_text(f"id = {json.dumps(name)}\n")
    environ = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }
    with interactive(request.param, environ, folder) as shell:
        shell.run(SOURCE[request.param].format("~/it\\'s\\ \\$here/gm"))
        yield Typed(shell, folder)


@pytest.fixture(autouse=True)
def _nothing_ran(typed: Typed) -> Iterator[None]:
    """Whatever was typed and completed, none of it was carried out."""
    yield
    assert not (typed.folder / "pwned").exists()
    assert {each.name for each in typed.folder.iterdir()} == set(FILES)


@pytest.mark.parametrize(
    "line,becomes",
    [
        ("gemctl pul", "gemctl pull "),
        ("gemctl pull smo", "gemctl pull smollm2-135m "),
        ("gm pull smo", "gm pull smollm2-135m "),
        ("true; gemctl pull smo", "true; gemctl pull smollm2-135m "),
        ("gemctl run -m smollm2-135m:", "gemctl run -m smollm2-135m:q4_1 "),
        ("gemctl run -m smollm2-135m:q", "gemctl run -m smollm2-135m:q4_1 "),
        ("gemctl run --model=smollm2-135m:q", "gemctl run --model=smollm2-135m:q4_1 "),
        ('gemctl run -m "smollm2-135m:q', 'gemctl run -m "smollm2-135m:q4_1" '),
        ("gemctl run --mode be", "gemctl run --mode best "),
        ("gemctl run --mode=be", "gemctl run --mode=best "),
        ("gemctl pull smollm2-135m --variant q", "gemctl pull smollm2-135m --variant q4_1 "),
        ("gemctl plan --on m4-m", "gemctl plan --on m4-max-48gb "),
        ("gemctl quantize x --to nv", "gemctl quantize x --to nvfp4 "),
        ("gemctl doctor disk", "gemctl doctor disk-space "),
        ("gemctl run -m smi", "gemctl run -m smile.gguf "),
        ("gemctl run -m ./smi", "gemctl run -m ./smile.gguf "),
        ("gemctl run -m ./a", "gemctl run -m ./a\\ b.gguf "),
        ("gemctl run --model=./a", "gemctl run --model=./a\\ b.gguf "),
        ("gemctl run -m ~/wo", "gemctl run -m ~/work/"),
        ("gemctl run hi > smi", "gemctl run hi > smile.gguf "),
        ('gemctl run "$(touch pwned)" -m smol', 'gemctl run "$(touch pwned)" -m smollm2-135m '),
        ("gemctl run '`touch pwned`' -m smol", "gemctl run '`touch pwned`' -m smollm2-135m "),
        ("gemctl run 'a  b' ';' -m smol", "gemctl run 'a  b' ';' -m smollm2-135m "),
        ("A=1 gemctl pull smo", "A=1 gemctl pull smollm2-135m "),
        ("gemctl frobnicate x", "gemctl frobnicate x"),
        ("gemctl pull nobody", "gemctl pull nobody"),
    ],
)
def test_tab_completes_the_word(typed: Typed, line: str, becomes: str) -> None:
    """Commands, options, models, variants behind a colon, machines and files; nothing else."""
    # bash and zsh close the quotes that are open; all three then begin another word.
    assert typed.shell.complete(line) == becomes


@pytest.mark.parametrize(
    "begin,name",
    [("./q", 'q"uote'), ("./\\$", "$(touch pwned)"), ("./\\`", "`touch pwned`"), ("./n", "new\n")],
)
def test_names_that_mean_something_to_a_shell_are_quoted(
    typed: Typed, begin: str, name: str
) -> None:
    """The line that Tab made hands the file's own name to a command, and runs nothing."""
    made = typed.shell.complete(f"gemctl run -m {begin}").rstrip()
    assert made != f"gemctl run -m {begin}"
    if typed.shell.name == "bash" and "\n" in name:
        pytest.skip("bash 5.2 loses newlines of file names, in its own completion, too")
    seen = typed.folder.parent / "seen"
    typed.shell.run(f"printf %s {made.removeprefix('gemctl run -m ')} > {seen}")
    assert seen.read_text().startswith(f"./{name}")
    seen.unlink()


def test_a_colon_that_is_quoted_is_a_colon(typed: Typed) -> None:
    """Some write it so, because it breaks words in bash."""
    line = typed.shell.complete("gemctl run -m smollm2-135m\\:q")
    assert line.replace("\\", "") == "gemctl run -m smollm2-135m:q4_1 "


def test_a_menu_of_bash_quotes_files_beside_models(typed: Typed) -> None:
    """There it can be a file that stands on the line, although models begin so as well."""
    if typed.shell.name != "bash":
        pytest.skip("only bash is told how to quote")
    typed.shell.run("bind TAB:menu-complete")
    seen = {typed.shell.complete("gemctl run -m sm", tabs=tabs) for tabs in (1, 2, 3)}
    typed.shell.run("bind TAB:complete")
    assert seen == {
        f"gemctl run -m {each} "
        for each in ("smollm2-135m", "smile.gguf", "sm\\ \\$\\(touch\\ pwned\\)")
    }


def test_what_is_possible_is_shown(typed: Typed) -> None:
    """Models and files beside each other; names that steer a terminal are no names."""
    seen = typed.shell.listed("gemctl run -m sm")
    assert "smollm2-135m" in seen
    assert "smile.gguf" in seen
    assert "owned" not in seen
    seen = typed.shell.listed("gemctl ru")
    assert "run" in seen


def test_file_names_do_not_steer_the_terminal(typed: Typed) -> None:
    """That is the shell's own listing: it shows what it may not send."""
    typed.shell.listed("gemctl run -m ./")
    title = typed.shell.shown._ask("display-message", "-p", "#{pane_title}").strip()
    assert title != "owned"
