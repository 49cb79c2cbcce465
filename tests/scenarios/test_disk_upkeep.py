"""What lies on disk, and how it goes: a real daemon, a real `gemctl`, a real hub's cache."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import scan_cache_dir

from gemd.cli.failures import Exit
from tests.support.hub_faults import PULLED, SEVERAL, ended, hubbed, stall, stop_after
from tests.support.repositories import checkpoint_files, wanted_of
from tests.support.stores import content

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hub_faults import Hubbed

MIB = 1 << 20
DATA = content(6 * MIB)


def _age(folder: Path) -> None:
    """Make everything look as if it was last written to two days ago."""
    for path in (folder, *folder.rglob("*")):
        moment = path.lstat().st_mtime - 2 * 86_400
        os.utime(path, (moment, moment), follow_symlinks=False)


def _repositories(user: Hubbed) -> dict[str, int]:
    """What the hub's own client sees in its cache: bytes by repository."""
    found = scan_cache_dir(user.cache / "huggingface" / "hub")
    assert not found.warnings
    return {each.repo_id: each.size_on_disk for each in found.repos}


def test_the_quota_makes_the_older_model_give_way() -> None:
    """A pull says who goes, and the hub's own client finds what stayed and nothing else."""
    files = checkpoint_files(shard_bytes=MIB)
    with hubbed(DATA, GEMD_STORE_QUOTA="8MiB") as user:
        user.add_checkpoint(files)
        with user.serving():
            assert user.inside("pull", PULLED).returncode == 0
            done = user.inside("pull", SEVERAL)
            assert done.returncode == 0, done.stderr
            assert f"removed {PULLED} q4 (6.0 MiB): the quota for models is 8.0 MiB" in done.stderr
            assert list(_repositories(user)) == ["someone/tiny-checkpoint"]
            listed = user.inside("list", "--variants")
            size = sum(map(len, wanted_of(files).values()))
            shown = [line.split()[0] for line in listed.stdout.splitlines()]
            assert (SEVERAL in shown, PULLED in shown) == (True, False)
            assert " of 8.0 MiB, " in listed.stderr
            document = json.loads(user.inside("list", "--json").stdout)
            assert document["disk"]["owned_bytes"] == size


@pytest.mark.slow
def test_what_a_killed_pull_left_is_pruned_after_a_day() -> None:
    """Not before; and neither what is complete nor what the hub's own client left goes with it."""
    with hubbed(DATA) as user:
        user.add_checkpoint(checkpoint_files(shard_bytes=MIB))
        process = user.start()
        try:
            assert user.inside("pull", SEVERAL).returncode == 0
            stall(user, 3 * MIB)
            with user.client() as client:
                client.pull(PULLED)
                stop_after(user, 3 * MIB, stored=True)
        finally:
            process.send_signal(signal.SIGKILL)
            ended(process)
        # What that daemon left is not to be taken up, as if the user had given it up.
        for file in (user.home.path / "state" / "gemd" / "operations").glob("*.json"):
            file.unlink()
        theirs = user.cache / "huggingface" / "hub" / "models--someone--other" / "blobs"
        theirs.mkdir(parents=True)
        (theirs / f"{'a' * 64}.1b2c.incomplete").write_bytes(b"theirs")
        with user.serving():
            assert user.inside("prune", "--yes").stdout == ""
            assert user.unfinished_bytes() >= 3 * MIB
            _age(user.cache)
            refused = user.inside("prune")
            assert refused.returncode == Exit.USAGE
            assert user.unfinished_bytes() >= 3 * MIB
            done = user.inside("prune", "--yes")
            assert done.returncode == 0, done.stderr
            assert "left of an unfinished pull or quantization" in done.stdout
            assert user.unfinished_bytes() == 0
            assert [each.model for each in user.manifests()] == [SEVERAL]
            assert user.inside("list", "--variants").stdout.count(SEVERAL) == 1
        assert len(list(theirs.iterdir())) == 1
