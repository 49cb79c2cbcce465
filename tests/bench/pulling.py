"""Our transfer against the hub's own client: the same file, server and disk, in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import machine
from tests.bench.report import Check, Section
from tests.support.file_server import Stall
from tests.support.hub_faults import wait_for
from tests.support.stores import FILE, REPOSITORY, content
from tests.support.xet_storage import XetHub, XetStorage

if TYPE_CHECKING:
    from tests.bench.setting import Setting

SIZE = 200_000_000
PIECES = 8
"""Of how many different pieces the file is made; the rest is a repetition of them."""
_ROOT = Path(__file__).parents[2]

_OURS = """
import asyncio, hashlib, json, resource, sys, time
from pathlib import Path
root, url, sha256, size, xet = sys.argv[1:]
from gemd.catalog import HubSource, Profile, Variant
from gemd.store import Store, Transport
from tests.support.stores import FILE, REPOSITORY, environ
source = HubSource(repository=REPOSITORY, file=FILE)
variant = Variant(id="q4", quantization="Q4_0", file_name=FILE, size_bytes=int(size),
                  sha256=sha256, sources=(source,))
profile = Profile(id="tiny", display_name="tiny", family="test", variants=(variant,))
transport = Transport(hub_endpoint=url, environ=environ(Path(root)), xet=bool(xet))
store = Store(Path(root) / "store", transport=transport)
# Its client is imported by the first call, which is not what is measured.
import huggingface_hub.file_download
began = time.perf_counter()
path = asyncio.run(store.pull(profile)).path
"""
_THEIRS = """
import hashlib, json, os, resource, sys, time
from pathlib import Path
root, url, sha256, size, _ = sys.argv[1:]
os.environ.update(HF_ENDPOINT=url, HF_HOME=root, HF_HUB_DISABLE_XET="1",
                  HF_HUB_DISABLE_PROGRESS_BARS="1", NO_PROXY="*")
from huggingface_hub import hf_hub_download
from tests.support.stores import FILE, REPOSITORY
began = time.perf_counter()
path = hf_hub_download(REPOSITORY, FILE)
"""
_END = """
took = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_SELF)
assert hashlib.file_digest(open(path, "rb"), "sha256").hexdigest() == sha256
print(json.dumps([took, used.ru_utime + used.ru_stime]))
"""


@dataclass(frozen=True)
class _Program:
    """A contender; `arguments` follow the folder that it may write to."""

    name: str
    source: str
    arguments: tuple[str, ...]

    def start(self, root: Path) -> subprocess.Popen[str]:
        """A process that fetches the file."""
        command = [sys.executable, "-c", self.source + _END, str(root), *self.arguments]
        return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)

    def run(self, root: Path) -> tuple[float, float]:
        """Seconds of the fetch, and of the processor."""
        with self.start(root) as process:
            said, _ = process.communicate()
        assert process.returncode == 0
        took, used = json.loads(said)
        return took, used


async def measure(setting: Setting) -> Section:
    """Time of a whole file, and what is fetched twice when it is killed at half of it."""
    data = (content(SIZE // PIECES) * PIECES)[:SIZE]
    section = Section(
        "Fetching a file",
        f"A file of {SIZE / 1e6:.0f} MB from a server on this machine that speaks the hub's "
        f"protocol, into an empty cache, in a new process each; {setting.rounds} rounds in turns. "
        "gemd hashes it on the way; huggingface_hub, without Xet, compares the size. Through Xet: "
        "the real library, whose storage is a folder on this disk instead of servers, so that "
        "nothing can be said of a network. Killed with SIGKILL when half of it was on disk, and "
        f"started again. {machine.describe(threads=setting.threads)[0]}, its disk is virtual.",
        (
            "program",
            "median s",
            "min – max",
            "MB/s",
            "processor s",
            "fetched twice after a kill, MB",
        ),
    )
    with tempfile.TemporaryDirectory(prefix="gemd-bench-") as folder:
        storage = XetStorage(Path(folder) / "storage")
        with XetHub(storage) as hub:
            hub.add(REPOSITORY, FILE, data)
            hub.xet_hashes[FILE] = storage.put(data)
            twice = _compare(section, hub, Path(folder), setting.rounds)
    section.checks.append(
        Check(
            "what was there and is fetched again after SIGKILL",
            100 * twice / (SIZE // 2),
            5,
            at_least=False,
            unit=" %",
        )
    )
    return section


def _compare(section: Section, hub: XetHub, folder: Path, rounds: int) -> int:
    """Fills the table; what gemd fetches twice over HTTP."""
    arguments = (hub.url, hub.hashes[f"/{REPOSITORY}/resolve/main/{FILE}"], str(SIZE))
    programs = (
        _Program("gemd", _OURS, (*arguments, "")),
        _Program("gemd through Xet", _OURS, (*arguments, "xet")),
        _Program(f"huggingface_hub {version('huggingface_hub')}", _THEIRS, (*arguments, "")),
    )
    runs: dict[str, list[tuple[float, float]]] = {each.name: [] for each in programs}
    for number in range(rounds):
        for program in programs if number % 2 else reversed(programs):
            with tempfile.TemporaryDirectory(dir=folder) as root:
                runs[program.name].append(program.run(Path(root)))
    twice = {}
    for program in programs:
        counted = not program.arguments[-1]
        with tempfile.TemporaryDirectory(dir=folder) as root:
            twice[program.name] = _fetched_twice(program, hub, Path(root)) if counted else 0
        times, processor = zip(*runs[program.name], strict=True)
        median = statistics.median(times)
        section.rows.append(
            (
                program.name,
                f"{median:.2f}",
                f"{min(times):.2f} – {max(times):.2f}",
                f"{SIZE / median / 1e6:.0f}",
                f"{statistics.median(processor):.2f}",
                f"{twice[program.name] / 1e6:.1f}" if counted else "-",
            )
        )
    return twice["gemd"]


def _fetched_twice(program: _Program, hub: XetHub, root: Path) -> int:
    """Bytes beyond the file's own that cross when it is killed at half and started again."""
    hub.body_bytes = 0
    hub.fault(Stall(SIZE // 2))
    with program.start(root) as process:
        wait_for(lambda: _largest(root) >= SIZE // 2, "half of the file")
        process.kill()
    program.run(root)
    return hub.body_bytes - SIZE


def _largest(root: Path) -> int:
    """Bytes of the largest file that lies there, by what the program has written of it."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return max((file.stat().st_size for file in files), default=0)
