"""What the documents and the program tell people to type is read by the real command line.

Nothing is run: each `gemctl …` and `gemd …` of the documents' code, and of the texts in the code,
is parsed as it stands, with its subcommands, options and choices.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

import click
import pytest

from gemd.cli.app import gemctl as client
from gemd.cli.output import Output
from gemd.cli.quantize import quantize
from gemd.cli.session import Session
from gemd.config.settings import Settings, variable_of
from gemd.daemon import main as daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted(
    {
        *(ROOT / name for name in ("README.md", "proto/README.md")),
        *(ROOT / "service").rglob("*.md"),
        *(ROOT / "gemd").rglob("*.md"),
        *(ROOT / "proto" / "examples").glob("*/*.md"),
    }
)
VARIABLES: Final = {
    *map(variable_of, Settings.model_fields),
    # Read before there are settings, or by `gemctl` alone; each is documented where it is read.
    *("GEMD_CONFIG", "GEMD_AUTOSTART", "GEMD_DEBUG"),
}
FOREIGN: Final = {
    "--only": "python -m tests.bench",
    "--go_opt": "protoc",
}
"""Flags of other programs that the documents name by themselves."""

_PROGRAMS: Final = {"gemctl": client, "gemd": daemon}
_PLACEHOLDER: Final = "x"
_WORTH_PARSING: Final = re.compile(r"gemctl |gemd |GEMD_")
"""What a file has in it if one of its texts names a command or a variable."""
_ELLIPSIS: Final = ("…", "...")


def shell_commands(line: str) -> Iterator[list[str]]:
    """The words of each `gemctl` and `gemd` on a line of a shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    with contextlib.suppress(ValueError):
        # An apostrophe of prose is no quote; what came before it has been read.
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;()") and word != "&-":
                yield from _called(words)
                words = []
            else:
                words.append(word)
                for inner in re.findall(r"\$\((.*)\)", word):
                    yield from shell_commands(inner)


def _called(words: list[str]) -> Iterator[list[str]]:
    for number, word in enumerate(words):
        if word.rpartition("/")[2] in _PROGRAMS and not word.endswith("-"):
            rest = words[number + 1 :]
            redirected = next((n for n, each in enumerate(rest) if set(each) <= set("<>&")), None)
            if redirected and rest[redirected - 1].isdigit():
                redirected -= 1
            yield [word.rpartition("/")[2], *rest[:redirected]]
            return
        if not re.fullmatch(r"[A-Z_]+=.*|exec|sudo|nohup|env", word):
            return


def wrong(words: list[str], *, whole: bool) -> str:
    """What the command line would say against it; empty if nothing.

    Args:
        words: The program and its arguments.
        whole: Whether it stands there to be typed, so that no argument may be missing.

    """
    program, *arguments = (word for word in words if not word.startswith(_ELLIPSIS))
    try:
        _read(_PROGRAMS[program], program, arguments)
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        return ""
    except click.UsageError as error:
        return "" if not whole and _is_open(error, arguments) else error.format_message()
    return ""


def _is_open(error: click.UsageError, arguments: list[str]) -> bool:
    """Whether only a value is missing that a text leaves open, or has a placeholder for."""
    if isinstance(error, click.NoSuchCommand):
        return error.command_name == _PLACEHOLDER
    if isinstance(error, click.MissingParameter | click.BadOptionUsage):
        return True
    placeholders = any(re.fullmatch(r"[A-Z_|:\[\]]+|x+", word) for word in arguments)
    return isinstance(error, click.BadParameter) and placeholders


def _read(command: click.Command, name: str, arguments: list[str]) -> None:
    """As click reads it, down to the last subcommand, and no further.

    Raises:
        click.UsageError: It cannot be read.

    """
    session = Session(Output.standard({}), {})
    context = command.make_context(name, list(arguments), obj=session)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        inner, found, rest = command.resolve_command(context, rest)
        assert found is not None, inner
        with _files_need_not_exist(found):
            command, context = found, found.make_context(inner, rest, parent=context)


@contextlib.contextmanager
def _files_need_not_exist(command: click.Command) -> Iterator[None]:
    """Files that an example names are not there; afterwards the command is as it was."""
    with contextlib.ExitStack() as patches:
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                patches.enter_context(mock.patch.object(parameter, "type", click.STRING))
        yield


def _blocks(text: str) -> Iterator[str]:
    """Lines of code blocks that are the shell's."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language in {"sh", "bash", "console", "text", ""}:
            joined = block.replace("\\\n", " ")
            yield from (re.split(r"(?:^|\s)#", line)[0] for line in joined.splitlines())


def _spans(text: str) -> list[str]:
    """Code in the lines of a text."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


@functools.cache
def _documented() -> list[tuple[str, list[str], bool]]:
    """Each command of a document: where, its words, and whether it stands there to be typed."""
    found = []
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        place = str(file.relative_to(ROOT))
        for whole, lines in ((True, _blocks(text)), (False, _spans(text))):
            found += [(place, words, whole) for line in lines for words in shell_commands(line)]
    return found


@pytest.mark.parametrize(
    "words,whole",
    [pytest.param(w, h, id=f"{place}: {' '.join(w)}") for place, w, h in _documented()],
)
def test_every_documented_command_can_be_read(words: list[str], whole: bool) -> None:  # noqa: FBT001
    """Subcommand, options, choices, and in a block also all that it needs."""
    assert wrong(words, whole=whole) == ""


@pytest.mark.parametrize(
    "line,says",
    [
        ("gemctl frobnicate", "No such command"),
        ("gemctl ops frobnicate", "No such command"),
        ("gemctl run --frob 'Hi'", "No such option"),
        ("gemctl run --mode quick 'Hi'", "'quick' is not one of"),
        ("gemctl config show more", "unexpected extra argument"),
        ("gemctl load", "Missing argument"),
        ("gemctl plan --context many", "not a whole number"),
        ("git diff | gemctl run --frob", "No such option"),
        ("A=1 gemctl frobnicate && true", "No such command"),
        (".venv/bin/gemctl frobnicate > out", "No such command"),
        ('eval "$(gemctl completion tcsh)"', "'tcsh' is not one of"),
        ("gemd --frob", "No such option"),
    ],
)
def test_a_wrong_one_is_found(line: str, says: str) -> None:
    """Else the tests above would say nothing."""
    (words,) = shell_commands(line)
    assert says in wrong(words, whole=True)


def test_the_documents_are_read_at_all() -> None:
    """Blocks, spans, and the documents that are there."""
    found = _documented()
    assert sum(whole for *_, whole in found) > 40
    assert sum(not whole for *_, whole in found) > 60
    assert {"README.md", "proto/README.md", "service/README.md"} <= {place for place, *_ in found}


def _options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    yield "--help"
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from _options(inner)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_flag_that_is_named_by_itself_exists(file: Path) -> None:
    """In one command or the other; the ones of other programs are known."""
    ours = {*_options(client), *_options(daemon)}
    named = {
        flag
        for span in _spans(file.read_text(encoding="utf-8"))
        if span.startswith("--")
        for flag in re.findall(r"--[a-z][a-z_-]*", span)
    }
    assert named - ours - set(FOREIGN) == set()


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_variable_of_the_documents_exists(file: Path) -> None:
    """It is a setting's, or one of the few that are read without."""
    named = set(re.findall(r"\bGEMD_[A-Z0-9_]+\b", file.read_text(encoding="utf-8")))
    assert named <= VARIABLES


@functools.cache
def _texts() -> tuple[tuple[str, str], ...]:
    """Strings in the code that may name something of ours, each with where it is."""
    files = sorted((ROOT / "gemd").rglob("*.py"))
    ours = [file for file in files if "v1" not in file.relative_to(ROOT / "gemd").parts]
    return tuple(text for file in ours for text in _texts_of(file))


def _texts_of(file: Path) -> Iterator[tuple[str, str]]:
    """Those of a file; values in them are `x`."""
    source = file.read_text(encoding="utf-8")
    if _WORTH_PARSING.search(source):
        tree = ast.parse(source)
        inside = {id(part) for node in ast.walk(tree) for part in getattr(node, "values", ())}
        for node in ast.walk(tree):
            place = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield place, "".join(_literal(part) for part in node.values)
            elif isinstance(node, ast.Constant) and id(node) not in inside:
                yield place, node.value if isinstance(node.value, str) else ""


def _literal(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else _PLACEHOLDER


@functools.cache
def _advised() -> list[tuple[str, list[str]]]:
    """Commands that texts of the program name: as a whole text, or between backquotes."""
    found = []
    for place, text in _texts():
        lines = [text] if text.startswith(("gemctl ", "GEMD_")) and "\n" not in text else []
        for line in (*lines, *re.findall(r"`((?:gemctl|gemd) [^`]+)`", text)):
            # Behind three blanks there is what it does.
            command = re.split(r" {3}\(", line)[0]
            found += [(place, words) for words in shell_commands(command)]
    return found


def test_every_command_that_the_program_advises_can_be_read() -> None:
    """Its options too: what an error says is typed as it stands."""
    # All in one test: what is read takes seconds, in every process that collects tests.
    said = {(place, " ".join(words)): wrong(words, whole=False) for place, words in _advised()}
    assert {each: why for each, why in said.items() if why} == {}


def test_the_advice_is_read_at_all() -> None:
    """Literal texts, those with values, and those between backquotes."""
    found = [" ".join(words) for _, words in _advised()]
    assert len(found) > 80
    assert "gemctl list" in found
    assert any(_PLACEHOLDER in each.split() for each in found)


def test_every_variable_that_the_program_names_exists() -> None:
    """In its errors and its help, a setting that is renamed keeps no old name."""
    named = {
        (name, place)
        for place, text in _texts()
        for name in re.findall(r"\bGEMD_[A-Z0-9][A-Z0-9_]*[A-Z0-9]\b", text)
    }
    assert {name for name, _ in named} > {"GEMD_SOCKET", "GEMD_CONFIG"}
    assert {each for each in named if each[0] not in VARIABLES} == set()


def test_reading_an_example_changes_no_command() -> None:
    """The command is this process's only one, and other tests run it."""
    words = ["gemctl", "quantize", "m", "--to", "Q4_0", "--imatrix", "/is/not/there"]
    assert wrong(words, whole=True) == ""
    with pytest.raises(click.BadParameter, match="does not exist"):
        quantize.make_context("quantize", words[2:])
