"""The daemon as a process of its own, with everything it reads and writes below one folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.app import short_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MODEL = "scripted"
START_S = 30.0

_PROFILE = """
id = "scripted"
display_name = "Scripted"
family = "scripted"
context_tokens = 4096

[[variants]]
id = "file"
quantization = "none"
engine = "scripted"
file_name = "scripted.gguf"
size_bytes = 8

[[variants.sources]]
kind = "local"
path = "{path}"
"""


@dataclass
class Home:
    """A user's directories."""

    path: Path

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self.path / "run" / "gemd" / "gemd.sock"

    def environ(self, **extra: str) -> dict[str, str]:
        """The environment of this user."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GEMD_")}
        return kept | {
            "HOME": str(self.path),
            "XDG_CONFIG_HOME": str(self.path / "config"),
            "XDG_STATE_HOME": str(self.path / "state"),
            "XDG_CACHE_HOME": str(self.path / "cache"),
            "XDG_RUNTIME_DIR": str(self.path / "run"),
            "PYTHONPATH": str(ROOT),
            "GEMD_DEFAULT_MODEL": MODEL,
            **extra,
        }

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """A daemon's process, which may not serve yet."""
        with (self.path / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "gemd", *arguments],
                env=self.environ(**extra),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def log(self) -> str:
        """All that its daemons wrote to standard error or, autostarted, to their log file."""
        files = (self.path / "log", *self.path.rglob("gemd.log"))
        return "".join(file.read_text(encoding="utf-8") for file in files)

    def wait_until_serving(self, process: subprocess.Popen[Any]) -> None:
        """Return when the daemon of that process has said that it serves."""
        give_up = time.monotonic() + START_S
        said = f'"pid": {process.pid}, "socket"'
        while said not in self.log():
            assert process.poll() is None, self.log()
            assert time.monotonic() < give_up, self.log()
            time.sleep(0.02)


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """A user with one scripted model."""
    with short_directory() as path:
        made = Home(path)
        file = path / "scripted.gguf"
        file.write_bytes(b"GGUFtest")
        profiles = path / "config" / "gemd" / "models"
        profiles.mkdir(parents=True)
        (profiles / "scripted.toml").write_text(_PROFILE.format(path=file), encoding="utf-8")
        (path / "run").mkdir(mode=0o700)
        (path / "log").touch()
        yield made


@contextlib.contextmanager
def serving(made: Home, *arguments: str, **extra: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon that serves, and is certainly gone afterwards."""
    process = made.start(*arguments, **extra)
    try:
        made.wait_until_serving(process)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
