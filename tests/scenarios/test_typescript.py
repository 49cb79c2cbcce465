"""The TypeScript example: built from its lock file, beside the real daemon and a scripted one."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.client import default_socket
from tests.support.daemon_says import abort, delta, draft, ended, finished, resolved, started
from tests.support.desktop import MODEL, PARIS, Desktop
from tests.support.fake_daemon import FakeDaemon
from tests.support.typescript import MISSING, Example, NoRegistryError, build, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing(), reason=MISSING)]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Installed and built, once for this file."""
    try:
        return build(tmp_path_factory.mktemp("typescript"))
    except NoRegistryError as error:
        pytest.skip(f"npm reaches no registry: {error}")


@pytest.fixture
def socket() -> Iterator[Path]:
    """A path for a socket."""
    with tempfile.TemporaryDirectory(prefix="gemd-") as folder:
        yield Path(folder) / "gemd.sock"


@pytest.fixture
def daemon(socket: Path) -> Iterator[FakeDaemon]:
    """A daemon that says what `daemon.script` tells it to."""
    with FakeDaemon(socket) as running:
        yield running


@pytest.fixture
def environ(socket: Path) -> dict[str, str]:
    """That of the example, with a proxy that nobody may ask."""
    proxy = "http://127.0.0.1:9"
    return {"PATH": os.environ["PATH"], "GEMD_SOCKET": str(socket), "http_proxy": proxy}


def test_its_own_tests_pass(example: Example) -> None:
    """Of the socket's rule and of drafts."""
    files = [
        str(file.relative_to(example.folder)) for file in example.folder.glob("dist/*.test.js")
    ]
    done = example.node("--test", *files)
    assert len(files) >= 2
    assert done.returncode == 0, done.stdout


def test_an_answer_of_the_real_model_names_paris(example: Example, running: Desktop) -> None:
    """The answer alone on standard output; what goes on before it on the other one."""
    found = example.node("dist/main.js", "--model", MODEL, PARIS, environ=running.environ)

    assert found.returncode == 0, found.stderr
    assert "Paris" in found.stdout
    assert found.stdout.count("\n") == 1
    assert f"loading models/{MODEL}: " in found.stderr


def test_embeddings_are_a_vector_for_each_text(example: Example, running: Desktop) -> None:
    """The typed client without the program around it."""
    script = """
    import { Gemd, GemdError } from "./dist/gemd.js";
    const gemd = new Gemd();
    const { embeddings } = await gemd.embed({ model: process.argv[1], texts: ["a", "b"] });
    console.log(JSON.stringify(embeddings.map(({ values }) => values.length)));
    try {
      await gemd.embed({ model: "nosuch", texts: ["a"] });
    } catch (error) {
      console.log(error instanceof GemdError && error.reason);
    }
    gemd.close();
    """
    arguments = ("--input-type=module", "--eval", script, MODEL)
    done = example.node(*arguments, environ=running.environ)
    sizes, reason = done.stdout.splitlines()

    assert json.loads(sizes) == [576, 576], done.stderr
    assert reason == "MODEL_NOT_FOUND"


def test_text_comes_while_the_daemon_still_writes(
    example: Example, daemon: FakeDaemon, environ: dict[str, str]
) -> None:
    """The first piece is read before the second is sent."""
    read = threading.Event()
    waited: list[bool] = []

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield delta("first\n")
        waited.append(read.wait(30))
        yield delta("last")
        yield finished()

    daemon.script.generate = script
    with example.start("Hi", environ=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        read.set()
        assert process.stdout.read() == "last\n"
        assert process.wait() == 0
    assert waited == [True]


def test_a_draft_is_never_the_answer(
    example: Example, daemon: FakeDaemon, environ: dict[str, str]
) -> None:
    """It is told of on standard error, and so is that it was replaced."""
    events = [draft("Fish."), resolved("REPLACED", why="no fish"), delta("It is 42.")]
    daemon.script.generate = lambda _request, _context: iter([*events, ended("REPLACED")])
    done = example.node("dist/main.js", "Hi", environ=environ)
    assert (done.stdout, done.stderr) == ("It is 42.\n", "draft: Fish.\nno fish\n")


def test_ctrl_c_cancels_the_answer(
    example: Example, daemon: FakeDaemon, environ: dict[str, str]
) -> None:
    """The daemon hears of it, what came stays, and the exit code is that of an interruption."""
    cancelled: list[bool] = []

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield delta("half\n")
        cancelled.append(daemon.stream_ended.wait(30))

    daemon.script.generate = script
    with example.start("Hi", environ=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(), process.stdout.read()) == (130, "")
    daemon.stop()
    assert cancelled == [True]


def test_a_deadline_ends_it(example: Example, daemon: FakeDaemon, environ: dict[str, str]) -> None:
    """Here and in the daemon, which is told of it."""

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        daemon.stream_ended.wait(30)

    daemon.script.generate = script
    done = example.node("dist/main.js", "--deadline", "2", "Hi", environ=environ)
    (left,) = daemon.deadlines
    assert (done.returncode, done.stderr) == (
        124,
        "error: the deadline passed (DEADLINE_EXCEEDED)\n",
    )
    assert left is not None
    assert 0 < left <= 2


def test_an_error_of_the_daemon_says_what_to_do(
    example: Example, daemon: FakeDaemon, environ: dict[str, str]
) -> None:
    """Reason, why and advice from the details of the status."""

    def script(_request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        yield delta("half")
        abort(
            context,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUEUE_FULL",
            "größer als 16",
            why="16 wait",
            advice=["gemctl status", "gemctl stop"],
            retry_after=1.5,
        )

    daemon.script.generate = script
    done = example.node("dist/main.js", "Hi", environ=environ)
    said = "  why: 16 wait\n  try: gemctl status\n  try: gemctl stop\n  try: again in 1.5 s\n"
    assert (done.returncode, done.stdout) == (1, "half\n")
    assert done.stderr == f"error: größer als 16 (QUEUE_FULL)\n{said}"


def test_without_a_daemon_it_says_so(example: Example, environ: dict[str, str]) -> None:
    """At once, and not after a minute of trying."""
    done = example.node("dist/main.js", "Hi", environ=environ)
    assert done.returncode == 1
    assert done.stderr.startswith("error: gemd does not answer (DAEMON_UNREACHABLE)\n")


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--deadline", "soon", "Hi"], "--deadline is no number: soon"),
        (["--max-tokens", "", "Hi"], "--max-tokens is no number: "),
        (["--nonsense", "Hi"], "Unknown option '--nonsense'"),
        ([], "there has to be one PROMPT"),
    ],
)
def test_a_command_line_that_is_not_understood_asks_nobody(
    example: Example,
    daemon: FakeDaemon,
    environ: dict[str, str],
    arguments: list[str],
    words: str,
) -> None:
    """What is wrong, how it is used, and exit code 2; no traceback, and no request without it."""
    done = example.node("dist/main.js", *arguments, environ=environ)
    first, second = done.stderr.splitlines()
    assert done.returncode == 2
    assert first.startswith(f"error: {words}")
    assert second.startswith("usage: npm start -- [--model M]")
    assert daemon.asked("Generate") == []


def test_a_socket_that_cannot_be_one_is_an_error_and_no_defect(
    example: Example, environ: dict[str, str]
) -> None:
    """As one with a relative path."""
    done = example.node("dist/main.js", "Hi", environ=environ | {"GEMD_SOCKET": "relative"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: the socket relative has to be an absolute path")
    assert done.stderr.count("\n") == 1


def test_an_embedding_can_be_cancelled_before_it_begins(
    example: Example, daemon: FakeDaemon, environ: dict[str, str]
) -> None:
    """As where the user was faster."""
    script = """
    import { Gemd } from "./dist/gemd.js";
    const gemd = new Gemd();
    const request = { model: "x", texts: ["a"] };
    await gemd.embed(request, { signal: AbortSignal.abort() }).catch((error) => {
      console.log(error.reason);
    });
    gemd.close();
    """
    done = example.node("--input-type=module", "--eval", script, environ=environ)
    assert done.stdout == "CANCELLED\n", done.stderr
    assert daemon.asked("Embed") == []


def test_a_socket_in_an_odd_folder_is_reached(example: Example, socket: Path) -> None:
    """Its path is not read as an address."""
    odd = socket.parent / "what? no#1 %41 größe" / "gemd.sock"
    odd.parent.mkdir()
    with FakeDaemon(socket):
        odd.symlink_to(socket)
        environ = {"PATH": os.environ["PATH"], "GEMD_SOCKET": str(odd)}
        done = example.node("dist/main.js", "Hi", environ=environ)
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n"), done.stderr


def test_the_socket_is_where_the_daemon_puts_it(example: Example, tmp_path: Path) -> None:
    """The same path as that of the Python client, for the same variables and files."""
    file = tmp_path / "config" / "gemd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('# mine\nlog_level = "info"\nsocket = "~/a b/\\u00e4.sock"\n[schedules]\n')
    other = tmp_path / "other.toml"
    other.write_text("socket = '/from/other.sock'\n")
    home = {"HOME": str(tmp_path)}
    environs = [
        home,
        home | {"GEMD_SOCKET": "/run/x.sock"},
        home | {"GEMD_SOCKET": "~/x.sock", "XDG_RUNTIME_DIR": "/run/user/7"},
        home | {"GEMD_SOCKET": "", "XDG_RUNTIME_DIR": "/run/user/7"},
        home | {"XDG_RUNTIME_DIR": "relative", "XDG_STATE_HOME": "/state"},
        home | {"XDG_RUNTIME_DIR": "/run/user/7", "RUNTIME_DIRECTORY": "/run/a:/run/b"},
        home | {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_RUNTIME_DIR": "/run/user/7"},
        home | {"XDG_CONFIG_HOME": "config", "XDG_RUNTIME_DIR": "/run/user/7"},
        home | {"GEMD_CONFIG": str(other), "XDG_CONFIG_HOME": str(tmp_path / "config")},
    ]
    script = """
    import { defaultSocket } from "./dist/socket.js";
    console.log(JSON.stringify(JSON.parse(process.argv[1]).map((each) => defaultSocket(each))));
    """
    done = example.node("--input-type=module", "--eval", script, json.dumps(environs))
    assert json.loads(done.stdout) == [str(default_socket(each)) for each in environs], done.stderr
