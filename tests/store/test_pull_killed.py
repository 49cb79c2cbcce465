"""A pulling process that is killed, and the next one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.file_server import Stall
from tests.support.hub_server import HubServer
from tests.support.stores import (
    FILE,
    REPOSITORY,
    announced_profile,
    content,
    hub_profile,
    make_store,
)

DATA = content(4_000_000)

PULL = """
import asyncio, sys
from pathlib import Path
from tests.support.stores import announced_profile, content, hub_profile, make_store
store = make_store(Path(sys.argv[1]), hub=sys.argv[2], read_timeout_s=60)
profile = announced_profile() if sys.argv[3:] else hub_profile(content(4_000_000))
def report(progress):
    print(progress.current_bytes, flush=True)
asyncio.run(store.pull(profile, report))
"""


def _killed_in_a_stall(root: Path, hub: HubServer, *announced: str) -> None:
    """Pulls in a process of its own, and kills it when 3,900,000 bytes have come."""
    child = subprocess.Popen(
        [sys.executable, "-c", PULL, str(root), hub.url, *announced],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 3_900_000:
                break
        child.kill()


@pytest.mark.parametrize("announced", [False, True], ids=["pinned", "announced"])
async def test_after_kill_9_the_next_process_resumes(tmp_path: Path, *, announced: bool) -> None:
    """The lock goes with the process, there is no model, and at most 5 % are fetched twice.

    Where the profile names no hash, what is left says by itself which file it is of.
    """
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.fault(Stall(3_900_000))
        flags = ["announced"] if announced else []
        await asyncio.to_thread(_killed_in_a_stall, tmp_path, hub, *flags)
        store = make_store(tmp_path, hub=hub.url)
        profile = announced_profile() if announced else hub_profile(DATA)
        assert not store.on_disk(profile)
        got = await store.pull(profile)
        assert got.path.read_bytes() == DATA
        assert hub.body_bytes <= 1.05 * len(DATA)
