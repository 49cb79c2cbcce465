from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd import __version__
from gemd.cli.app import COMMANDS
from gemd.cli.app import gemctl as group
from gemd.cli.failures import Exit, exit_code
from gemd.cli.session import Session
from gemd.errors import BY_REASON
from tests.support.gemctl import COMMAND, REPOSITORY

if TYPE_CHECKING:
    from tests.support.gemctl import Gemctl, Inside


def test_help_imports_nothing_slow() -> None:
    """`gemctl --help` prints every command and loads neither gRPC nor pydantic."""
    program = (
        "import sys; from gemd.cli.app import invoke; code = invoke(['--help'], {});"
        "slow = {'grpc', 'pydantic', 'google.protobuf', 'gemd.client', 'psutil', 'asyncio'};"
        "sys.exit(f'{code} {slow & set(sys.modules)}' if code or slow & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says(name: str) -> None:
    """The lines of `gemctl --help` are the first lines of the commands' own help."""
    command = group.get_command(None, name)  # type: ignore[arg-type] # it reads no context
    assert command is not None
    assert (command.help or "").strip().splitlines()[0].startswith(COMMANDS[name][2])


def test_version(gemctl: Gemctl) -> None:
    """One line with the version, on stdout."""
    assert gemctl("--version").stdout == f"gemctl {__version__}\n"


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["stauts"], "Did you mean 'status'?"),
        (["ops", "cancl"], "Did you mean 'cancel'?"),
        (["run", "--temprature", "1", "Hi"], "Did you mean '--temperature'?"),
        (["run", "--mode", "quick", "Hi"], "'quick' is not one of"),
        (["run", "--raw", "--system", "x", "Hi"], "--system needs the chat template"),
        (["run", "--deadline", "0", "Hi"], "'0' is not a number of seconds above 0"),
        (["run", "--deadline", "nan", "Hi"], "'nan' is not a number of seconds above 0"),
        (["run", "--deadline", "inf", "Hi"], "'inf' is not a number of seconds above 0"),
        (["run", "--top-k", "-1", "Hi"], "'-1' is not a whole number from 0 to 4294967295"),
        (["run", "--max-tokens", "many", "Hi"], "'many' is not a whole number from 0"),
        (["status", "--interval", "2"], "--interval is for --watch"),
        (["run", "--seed", "18446744073709551616", "Hi"], "from 0 to 18446744073709551615"),
        (["load"], "Missing argument 'MODEL'"),
        (["why", "--kind", "evicted"], "'evicted' is not one of"),
        (["why", "--limit", "1001"], "'1001' is not a whole number from 0 to 1000"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    inside: Inside, arguments: list[str], says: str
) -> None:
    """Exit code 2, nothing on stdout, and where to find help."""
    done = inside(*arguments)
    assert done.returncode == Exit.USAGE
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "  try: gemctl " in done.stderr
    assert " --help\n" in done.stderr


def test_an_option_without_its_value_leads_to_the_commands_help(inside: Inside) -> None:
    """Also where the command has not begun to run yet."""
    done = inside("run", "Hi", "--model")
    assert done.returncode == Exit.USAGE
    assert done.stderr == (
        "error: Option '--model' requires an argument.\n  try: gemctl run --help\n"
    )


def test_the_lines_of_the_help_are_whole(inside: Inside) -> None:
    """No command's line is cut off."""
    for arguments in ([], ["ops"], ["config"]):
        done = inside(*arguments, "--help")
        assert "..." not in done.stdout.partition("Commands:")[2]


def test_no_command_shows_the_help(inside: Inside) -> None:
    """Plain `gemctl` shows the overview on stderr and is a usage error."""
    done = inside()
    assert done.returncode == Exit.USAGE
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(inside: Inside, shell: str) -> None:
    """The script calls gemctl back through click's own variable."""
    done = inside("completion", shell)
    assert done.returncode == 0
    assert f"_GEMCTL_COMPLETE={shell}_complete" in done.stdout


def test_completion_knows_the_commands(gemctl: Gemctl) -> None:
    """What the script calls answers with the commands that begin so."""
    done = gemctl("--", "loa", "gemctl loa", _GEMCTL_COMPLETE="bash_complete")
    assert done.stdout == "plain,load\n"


def test_every_reason_has_an_exit_code() -> None:
    """Each error of the daemon ends with one of the documented codes, by reason or by code."""
    codes = {
        reason: exit_code(reason, kind.code.value) for reason, kind in sorted(BY_REASON.items())
    }
    assert codes == {
        "AUTH_REQUIRED": Exit.PRECONDITION,
        "BAD_CONFIG": Exit.PRECONDITION,
        "BAD_MODEL_FILE": Exit.PRECONDITION,
        "CANCELLED": Exit.FAILURE,
        "CONTENT_MISMATCH": Exit.FAILURE,
        "CONTEXT_TOO_LONG": Exit.DOES_NOT_FIT,
        "CPU_CONSENT_NEEDED": Exit.PRECONDITION,
        "DEADLINE_EXPIRED": Exit.DEADLINE,
        "DISK_FULL": Exit.DOES_NOT_FIT,
        "ENGINE_CRASHED": Exit.PRECONDITION,
        "ENGINE_MISSING": Exit.PRECONDITION,
        "ENGINE_START_FAILED": Exit.PRECONDITION,
        "EVENTS_LOST": Exit.FAILURE,
        "HUB_UNREACHABLE": Exit.FAILURE,
        "INVALID_REQUEST": Exit.USAGE,
        "MODEL_BUSY": Exit.PRECONDITION,
        "MODEL_FORBIDDEN": Exit.PRECONDITION,
        "MODEL_NOT_FOUND": Exit.NOT_FOUND,
        "MODEL_QUARANTINED": Exit.PRECONDITION,
        "MODEL_TOO_LARGE": Exit.DOES_NOT_FIT,
        "NOT_FOUND": Exit.NOT_FOUND,
        "OPERATION_CONFLICT": Exit.FAILURE,
        "QUEUE_FULL": Exit.DOES_NOT_FIT,
        "REPO_GATED": Exit.PRECONDITION,
        "SHUTTING_DOWN": Exit.UNREACHABLE,
        "UNEXPECTED": Exit.FAILURE,
        "UNIMPLEMENTED": Exit.FAILURE,
        "UNSUPPORTED_INPUT": Exit.USAGE,
        "VRAM_BUDGET_EXCEEDED": Exit.DOES_NOT_FIT,
    }
    # The error of an operation is the same error, though it comes without a code.
    assert {reason: exit_code(reason, "") for reason in codes} == codes
    assert exit_code("DAEMON_UNREACHABLE", "UNAVAILABLE") == Exit.UNREACHABLE
    assert exit_code("A_REASON_OF_TOMORROW", "NOT_FOUND") == Exit.NOT_FOUND


def test_the_settings_are_shown_with_their_origins(inside: Inside, home: Path) -> None:
    """Every value says whether it is the default, a variable's or the file's."""
    file = home / ".config" / "gemd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('keep_warm = "5m"\n')
    shown = json.loads(inside("config", "show", "--json", GEMD_PARALLEL="2").stdout)
    assert shown["settings"]["keep_warm"] == {"value": "5m", "origin": str(file)}
    assert shown["settings"]["parallel"] == {"value": "2", "origin": "GEMD_PARALLEL"}
    assert shown["settings"]["offline"]["origin"] == "default"
    assert shown["files"]["socket"]["value"] == str(home / "gemd.sock")
    table = inside("config", "show", "--origin").stdout.splitlines()
    assert table[0].split() == ["SETTING", "VALUE", "ORIGIN"]
    assert any(line.split() == ["keep_warm", "5m", str(file)] for line in table)
    assert inside("config", "show").stdout.splitlines()[0].split() == ["SETTING", "VALUE"]


def test_the_files_are_those_of_the_settings(inside: Inside) -> None:
    """Both tables of `config show` tell the same."""
    shown = json.loads(inside("config", "show", "--json", GEMD_STORE_DIR="/x/models").stdout)
    assert shown["settings"]["store_dir"] == {"value": "/x/models", "origin": "GEMD_STORE_DIR"}
    assert shown["files"]["store_dir"] == {"value": "/x/models", "origin": "GEMD_STORE_DIR"}


def test_a_wrong_setting_names_itself(inside: Inside) -> None:
    """The error of the settings arrives as every other error does."""
    done = inside("config", "show", GEMD_PARALLEL="many")
    assert done.returncode == Exit.PRECONDITION
    assert done.stderr.startswith("error: GEMD_PARALLEL sets parallel to 'many'")
    assert "  why: " in done.stderr


def test_an_argument_that_is_no_text_is_refused(inside: Inside) -> None:
    """Bytes that are not UTF-8 cannot go into a request, and are named."""
    done = inside("run", os.fsdecode(b"caf\xe9"))
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("error: the argument 'caf\\xe9' is not UTF-8 text\n")


def test_a_defect_is_no_traceback(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is said in one line; GEMD_DEBUG shows where it happened."""

    def broken(_: Session) -> Path:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(Session, "paths", property(broken))
    done = inside("status")
    assert done.returncode == Exit.FAILURE
    assert done.stderr.startswith("error: unexpected ZeroDivisionError: by nothing\n")
    with pytest.raises(ZeroDivisionError):
        inside("status", GEMD_DEBUG="1")


@pytest.mark.parametrize("arguments", [["config", "show"], ["--help"], ["completion", "bash"]])
def test_a_full_disk_under_stdout_is_an_error(gemctl: Gemctl, arguments: list[str]) -> None:
    """The command fails with the reason, once, and without a traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=gemctl.environ,
            cwd=REPOSITORY,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == Exit.FAILURE
    assert done.stderr.startswith("error: standard output cannot be written\n  why: No space left")
    assert len(done.stderr.splitlines()) == 2
