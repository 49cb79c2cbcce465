"""A user whose model hub is on this machine: the real daemon, the real `gemctl`, real files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.client import Client
from gemd.store import Manifest
from tests.support.daemon_process import START_S, Home, home
from tests.support.file_server import Stall
from tests.support.gemctl import Gemctl, Inside
from tests.support.hub_server import HubServer
from tests.support.repositories import CHECKPOINT

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping
    from email.message import Message

    from tests.support.file_server import Answer, Fault

PULLED = "tiny"
REPOSITORY = "someone/tiny-GGUF"
FILE = "tiny.gguf"
TOKEN = "hf_secret"

SEVERAL = "several"

_CHECKPOINT = """
id = "{model}"
display_name = "Several"
family = "test"
licence = "MIT"
context_tokens = 4096

[[variants]]
id = "bf16"
quantization = "BF16"
engine = "diffusion"
size_bytes = {size}

[[variants.sources]]
kind = "hub-repository"
repository = "{repository}"
files = ["*.safetensors", "*.json", "*.jinja", "sub/*.bin"]
"""
_PROFILE = """
id = "{model}"
display_name = "Tiny"
family = "test"
licence = "MIT"
context_tokens = 4096

[[variants]]
id = "q4"
quantization = "Q4_0"
file_name = "{file}"
size_bytes = {size}
sha256 = "{sha256}"

[[variants.sources]]
kind = "hub"
repository = "{repository}"
file = "{file}"
"""


class FaultyHub(HubServer):
    """A hub that fails at chosen files; use it from one client at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._at: dict[str, list[Fault]] = {}

    def fault_at(self, name: str, *faults: Fault) -> None:
        """The next requests for the content of that file fail so."""
        self._at.setdefault(name, []).extend(faults)

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """As of the hub; plans the fault of this request."""
        name = path.rpartition("/")[2]
        planned = self._at.get(name)
        if planned and not path.startswith("/api/"):
            self.fault(planned.pop(0))
        return super().refusal(path, headers)


@dataclass
class Hubbed:
    """A user with a hub.

    Attributes:
        home: The user's directories.
        hub: Has the file.
        data: What is in it.
        extra: Variables of the environment of daemon and commands.
        cache: Below it is all that pulls write.

    """

    home: Home
    hub: FaultyHub
    data: bytes
    extra: dict[str, str]
    cache: Path

    @property
    def gemctl(self) -> Gemctl:
        """The command line of this user."""
        return Gemctl(self.environ())

    @property
    def inside(self) -> Inside:
        """The same without a process of its own."""
        return Inside(self.environ())

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return Path(self.environ()["XDG_CACHE_HOME"]) / "gemd" / "models"

    def environ(self) -> dict[str, str]:
        """The user's environment; nothing in it leads to the real hub or cache."""
        found = self.home.environ()
        kept = {name: value for name, value in found.items() if not name.startswith("HF_")}
        return kept | {
            "GEMD_HUB_ENDPOINT": self.hub.url,
            "GEMD_AUTOSTART": "0",
            "NO_PROXY": "*",
            "TQDM_DISABLE": "1",
            **self.extra,
        }

    def start(self) -> subprocess.Popen[str]:
        """A daemon that serves. Whoever started it ends it."""
        process = self.home.start(**self.environ())
        try:
            self.home.wait_until_serving(process)
        except BaseException:
            ended(process)
            raise
        return process

    @contextlib.contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        """A daemon that serves, and is gone afterwards."""
        process = self.start()
        try:
            yield process
        finally:
            ended(process)

    def client(self) -> Client:
        """A connection to the daemon."""
        return Client(self.home.socket)

    def unfinished_bytes(self) -> int:
        """Bytes that lie in unfinished files."""
        total = 0
        for part in self.cache.rglob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                total += part.stat().st_size
        return total

    def add_checkpoint(self, files: Mapping[str, bytes]) -> None:
        """Another model, of several files."""
        self.hub.add_all(CHECKPOINT, files)
        size = sum(map(len, files.values()))
        _write_profile(
            self.home, SEVERAL, _CHECKPOINT.format(model=SEVERAL, size=size, repository=CHECKPOINT)
        )

    def manifests(self) -> list[Manifest]:
        """Those of all models that are on disk."""
        found = (Manifest.read(file) for file in self.store.glob("manifests/*/*.json"))
        return [manifest for manifest in found if manifest]

    def is_complete(self) -> bool:
        """Whether the model is on disk with all its bytes, and nothing unfinished is left."""
        kept = self.manifests()
        return (
            [manifest.model for manifest in kept] == [PULLED]
            and kept[0].file(self.store).read_bytes() == self.data
            and kept[0].sha256 == hashlib.sha256(self.data).hexdigest()
            and not self.unfinished_bytes()
        )

    def recorded(self) -> list[Mapping[str, object]]:
        """Operations that the next daemon would go on with."""
        folder = self.home.path / "state" / "gemd" / "operations"
        return [json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")]

    def offsets(self) -> list[int]:
        """At which byte each request for the file's content began."""
        spans = (asked.headers.get("Range", "") for asked in self.hub.asked("GET", FILE))
        return [int(span.removeprefix("bytes=").partition("-")[0]) if span else 0 for span in spans]


def ended(process: subprocess.Popen[str]) -> None:
    """Kill a daemon, if it still runs, and collect it."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def hubbed(data: bytes, **extra: str) -> Iterator[Hubbed]:
    """A user, and a hub with a model of that content."""
    with home() as user, FaultyHub() as hub:
        hub.add(REPOSITORY, FILE, data)
        profile = _PROFILE.format(
            model=PULLED,
            file=FILE,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            repository=REPOSITORY,
        )
        _write_profile(user, PULLED, profile)
        yield Hubbed(user, hub, data, extra, user.path / "cache")


def _write_profile(user: Home, name: str, content: str) -> None:
    file = user.path / "config" / "gemd" / "models" / f"{name}.toml"
    file.write_text(content, encoding="utf-8")


def wait_for(true: Callable[[], bool], what: str) -> None:
    """Poll until something holds; fails with its name if it never does."""
    give_up = time.monotonic() + START_S
    while not true():
        assert time.monotonic() < give_up, f"{what} did not happen within {START_S} s"
        time.sleep(0.01)


def stop_after(user: Hubbed, count: int, *, stored: bool) -> None:
    """Return when the next answer has stood still after so many bytes.

    Args:
        user: Whose hub it is. A pull is under way, or is about to begin.
        count: How many bytes are sent; fewer than are missing.
        stored: Whether to wait until they are on disk, too.

    """
    wait_for(user.hub.reached.is_set, "the stall")
    user.hub.reached.clear()
    if stored:
        begun = (user.offsets() or [0])[-1]
        wait_for(lambda: user.unfinished_bytes() >= begun + count, "the last byte before the stall")


def stall(user: Hubbed, count: int) -> None:
    """The next answer stands still after so many bytes, for ever."""
    user.hub.reached.clear()
    user.hub.fault(Stall(count))
