"""A whole gemd as a user has it: the real daemon process, the real model, a home of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gemd.client import (
    Client,
    DaemonUnreachableError,
    DeadlineExpiredError,
    GenerationOptions,
    Sampling,
)
from tests.support.gemctl import Gemctl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "smollm2-135m"
OTHER = "gemma3-270m"
PARIS = "What is the capital of France?"

REPOSITORY = Path(__file__).parents[2]
USERS_OWN = ("GEMD_", "HF_", "XDG_", "RUNTIME_DIRECTORY")
"""How the variables begin that would lead to the user's own settings, models or daemon."""

SETTING = {
    # Two busy llama.cpp threads on a shared two-core machine fight each other.
    "GEMD_THREADS": "1",
    "GEMD_CONTEXT_TOKENS": "1024",
    "GEMD_PARALLEL": "4",
    "GEMD_OFFLINE": "true",
    "GEMD_RAM_BUDGET": "8GiB",
}


def asking(*, model: str = MODEL, **sampling: object) -> GenerationOptions:
    """Options of a short answer."""
    return GenerationOptions(
        model=model,
        sampling=Sampling(**{"max_tokens": 24, **sampling}),  # type: ignore[arg-type] # by name
    )


@dataclass(frozen=True)
class Desktop:
    """A running daemon and how to reach it."""

    home: Path
    environ: dict[str, str]
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        """Of the daemon."""
        return Path(self.environ["GEMD_SOCKET"])

    @property
    def gemctl(self) -> Gemctl:
        """The command line of this desktop."""
        return Gemctl(self.environ)

    def client(self) -> Client:
        """A connection of its own."""
        return Client(self.socket)

    def daemon(self) -> psutil.Process:
        """The daemon's process."""
        return psutil.Process(self.process.pid)

    def workers(self) -> list[psutil.Process]:
        """Its worker processes; one that has just ended is none."""
        found = []
        for child in self.daemon().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "gemd.worker" in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def log(self) -> str:
        """What the daemon has written."""
        return (self.home / "gemd.log").read_text(errors="replace")


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and that nobody has reaped yet does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_until(true: Callable[[], bool], *, seconds: float = 20, what: str = "it") -> None:
    """Poll until something holds; fails with its name if it never does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def desktop(store: Path, **settings: str) -> Iterator[Desktop]:
    """Start a daemon on a store of models; ends it, and checks that nothing of it is left.

    Args:
        store: Directory of a `gemd.store.Store`.
        settings: Further variables of its environment, most of them ``GEMD_*``.

    """
    # A UNIX socket's path is short: pytest's own directories are too deep.
    with tempfile.TemporaryDirectory(prefix="gemd-") as name:
        home = Path(name)
        environ = {
            # A fixture of a whole module runs before any test's own home is set up.
            **{key: value for key, value in os.environ.items() if not key.startswith(USERS_OWN)},
            **SETTING,
            "HOME": str(home),
            "GEMD_SOCKET": str(home / "run" / "gemd.sock"),
            "GEMD_STORE_DIR": str(store),
            "GEMD_AUTOSTART": "0",
            **settings,
        }
        with serving(home, environ) as running:
            yield running


@contextlib.contextmanager
def serving(home: Path, environ: dict[str, str]) -> Iterator[Desktop]:
    """A daemon with this environment; see `desktop`."""
    with (home / "gemd.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemd"],
            env=environ,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    running = Desktop(home, environ, process)
    family: list[psutil.Process] = []
    try:
        wait_until(lambda: _answers(running), seconds=60, what="the daemon's first answer")
        yield running
        if process.poll() is None:
            family = running.daemon().children(recursive=True)
            process.terminate()
            assert process.wait(20) == 0, running.log()[-2000:]
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(alive(one) for one in family), what="the workers' end")


def _answers(running: Desktop) -> bool:
    assert running.process.poll() is None, running.log()[-2000:]
    with running.client() as client:
        try:
            client.info(deadline=1)
        except (DaemonUnreachableError, DeadlineExpiredError):
            return False
    return True
