from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemd.doctor import Result
from gemd.doctor.directories import DirectoryFacts, check_directories, examine_directories
from gemd.doctor.disk_space import DiskFacts, Room, check_disk_space, examine_disk_space
from gemd.doctor.folders import Folder, exposed, filesystem_of, look_at
from gemd.store.disk import SPARE_BYTES
from tests.support.doctoring import made, surroundings, write

MIB = 2**20
HOME = Path("/home/me")
ME = 1000


def folder(name: str, **changes: Any) -> Folder:
    """A private directory of this user."""
    path = HOME / name / "gemd"
    fields: dict[str, Any] = {"path": path, "nearest": path, "owner": ME}
    return Folder(**fields | changes)


FINE = DirectoryFacts(
    user=ME,
    home=HOME,
    state=folder("state"),
    cache=folder("cache"),
    store=folder("store"),
    engines=folder("engines"),
)


def test_nothing_has_to_be_there_and_nothing_is_made(tmp_path: Path) -> None:
    """A home that is new is fine, and stays as it is."""
    found = made(examine_directories, surroundings(tmp_path))
    assert found.result is Result.OK
    assert found.detail.endswith("still to be made: state, cache, models, engines")
    assert list(tmp_path.iterdir()) == []


def test_a_state_directory_that_lets_others_in_fails(tmp_path: Path) -> None:
    """As it would end the daemon; the command closes it."""
    state = tmp_path / "state" / "gemd"
    state.mkdir(parents=True)
    state.chmod(0o750)
    found = made(examine_directories, surroundings(tmp_path))
    assert (found.result, found.fixes) == (Result.FAILED, (f"chmod 700 {state}",))
    assert "lets others in (mode 0750)" in found.detail
    state.chmod(0o700)
    assert made(examine_directories, surroundings(tmp_path)).result is Result.OK


def test_a_file_in_the_way_fails(tmp_path: Path) -> None:
    """The nearest thing that exists is named, here one above the directory."""
    file = write(tmp_path / "cache")
    found = made(examine_directories, surroundings(tmp_path))
    assert found.result is Result.FAILED
    assert f"ls -ld {file}" in found.fixes


def test_models_may_be_behind_a_link_but_state_may_not(tmp_path: Path) -> None:
    """A link to another disk is what many have; the daemon refuses one for what is private."""
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir(mode=0o700)
    for place in ("cache", "state"):
        (tmp_path / place).mkdir()
    (tmp_path / "cache" / "gemd").symlink_to(elsewhere)
    assert made(examine_directories, surroundings(tmp_path)).result is Result.OK
    (tmp_path / "state" / "gemd").symlink_to(elsewhere)
    found = made(examine_directories, surroundings(tmp_path))
    assert found.result is Result.FAILED
    assert "is a symbolic link" in found.detail


@pytest.mark.parametrize(
    "changes,result,says,fix",
    [
        (
            {"store": folder("store", writable=False, mode=0o500)},
            Result.FAILED,
            "is not writable (mode 0500, owner 1000)",
            "chmod u+rwx /home/me/store/gemd",
        ),
        (
            {"store": folder("store", writable=False, owner=0, mode=0o755)},
            Result.FAILED,
            "is not writable (mode 0755, owner 0)",
            'sudo chown -R "$(id -un)" /home/me/store/gemd',
        ),
        (
            {"store": folder("store", writable=False, owner=1001, mode=0o755)},
            Result.FAILED,
            "is not writable (mode 0755, owner 1001)",
            "ls -ld /home/me/store/gemd",
        ),
        (
            {"store": Folder(Path("/srv/gemd"), Path("/srv/gemd"), writable=False, mode=0o755)},
            Result.FAILED,
            "is not writable (mode 0755, owner 0)",
            "ls -ld /srv/gemd",
        ),
        (
            {"cache": folder("cache", nearest=Path("/mnt"), exists=False, writable=False)},
            Result.FAILED,
            "/mnt is not writable",
            "ls -ld /mnt",
        ),
        (
            {"store": folder("store", mode=0o777)},
            Result.FAILED,
            "everybody may write",
            "chmod o-w /home/me/store/gemd",
        ),
        (
            {"store": folder("store", filesystem="nfs4")},
            Result.WARNING,
            "models are on nfs4",
            'export GEMD_STORE_DIR="/path/on/a/local/disk"',
        ),
        (
            {"store": folder("store", filesystem="tmpfs")},
            Result.WARNING,
            "they take main memory",
            'export GEMD_STORE_DIR="/path/on/a/local/disk"',
        ),
        (
            {"state": folder("state", filesystem="nfs")},
            Result.WARNING,
            "is on nfs",
            'export XDG_STATE_HOME="/path/on/a/local/disk"',
        ),
        (
            {"state": folder("state", owner=0)},
            Result.FAILED,
            "belongs to user 0, not 1000",
            "ls -ld /home/me/state/gemd",
        ),
        (
            {"engines": folder("engines", problem="Stale file handle")},
            Result.FAILED,
            "Stale file handle",
            "ls -ld /home/me/engines/gemd",
        ),
    ],
)
def test_what_is_wrong_with_a_directory(
    changes: dict[str, Any], result: Result, says: str, fix: str
) -> None:
    """Each case has its words and its command."""
    found = check_directories(replace(FINE, **changes))
    assert found.result is result
    assert says in found.detail
    assert fix in found.fixes


def test_no_advice_shuts_others_out_of_what_is_theirs() -> None:
    """The mode of a directory of the system is not to be changed for a socket of ours."""
    system = Folder(Path("/srv"), Path("/srv"), owner=ME, mode=0o755, open_above=True)
    found = list(exposed(system, "its directory", user=ME, home=HOME))
    assert len(found) == 2
    assert not any(fix.startswith("chmod") for each in found for fix in each.fixes)


def test_the_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    """Blanks in names are octal in the kernel's list, and a later mount covers an earlier one."""
    write(
        tmp_path / "proc/self/mounts",
        "/dev/sda / ext4 rw 0 0\n"
        "server:/m /mnt nfs4 rw 0 0\n"
        "server:/b /mnt/a\\040b cifs rw 0 0\n"
        "tmpfs /mnt tmpfs rw 0 0\n"
        "broken\n",
    )
    for path, kind in [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/mnt", "tmpfs"),
        ("/mntx", "ext4"),
        ("/mnt/a b/c", "cifs"),
    ]:
        assert filesystem_of(Path(path), root=tmp_path) == kind
    assert filesystem_of(Path("/"), root=tmp_path / "none") == ""


def test_a_directory_is_described_as_it_is(tmp_path: Path) -> None:
    """What exists, what would be made, and a link that leads nowhere."""
    real = look_at(tmp_path, root=Path("/"))
    assert (real.exists, real.writable, real.owner) == (True, True, os.getuid())
    assert real.filesystem
    absent = look_at(tmp_path / "a" / "b", root=Path("/"))
    assert (absent.exists, absent.nearest, absent.problem) == (False, tmp_path, "")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert look_at(tmp_path / "link", root=Path("/")).problem == "No such file or directory"


def test_room_for_models_is_that_of_their_disk(tmp_path: Path) -> None:
    """The smallest model that is not there is named with its size."""
    found = made(examine_disk_space, surroundings(tmp_path))
    assert found.result is Result.OK
    assert "smollm2-135m, takes 93" in found.detail


def test_leftovers_and_what_models_take_are_told(tmp_path: Path) -> None:
    """What an unfinished pull left goes with a command; one that is of today does not count."""
    part = tmp_path / "store" / "partial" / f"{'a' * 64}.part"
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(300 * MIB)
    around = surroundings(tmp_path, environ={"GEMD_STORE_DIR": str(tmp_path / "store")})
    found = made(examine_disk_space, around)
    assert found.result is Result.OK
    assert "those that gemd put there take 300 MiB" in found.detail
    os.utime(part, (1, 1))
    found = made(examine_disk_space, around)
    assert (found.result, found.fixes) == (Result.WARNING, ("gemctl prune",))
    assert found.detail.startswith("300 MiB are left of pulls and quantizations")


def test_more_than_the_quota_is_told() -> None:
    """As where models that are loaded keep it from being kept."""
    facts = DiskFacts(ROOMY, ROOMY, used_bytes=3 * 2**30, quota_bytes=2**30)
    found = check_disk_space(facts)
    assert found.result is Result.WARNING
    assert found.detail.startswith("models take 3.0 GiB, more than the quota of 1.0 GiB")
    assert found.fixes == ("gemctl list --variants", "gemctl prune --keep 1GiB")


ROOMY = Room(Path("/m"), 10 * 2**30)


@pytest.mark.parametrize(
    "store,state,result,says",
    [
        (Room(Path("/m"), SPARE_BYTES - 1), ROOMY, Result.FAILED, "no model can be pulled"),
        (Room(Path("/m"), 100 * MIB), ROOMY, Result.WARNING, "the model d (90.0 MiB) does not fit"),
        (Room(Path("/m"), 90 * MIB + SPARE_BYTES - 1), ROOMY, Result.WARNING, "1 B are missing"),
        (Room(Path("/m"), 90 * MIB + SPARE_BYTES), ROOMY, Result.OK, "154 MiB free"),
        (ROOMY, Room(Path("/s"), MIB), Result.FAILED, "1.0 MiB free for state and log in /s"),
        (ROOMY, Room(Path("/s"), 2**30, 0), Result.FAILED, "no more files can be made in /s"),
        (ROOMY, Room(Path("/s"), 2**30, 1), Result.OK, "10.0 GiB free"),
    ],
)
def test_a_disk_that_is_full_or_too_small(
    store: Room, state: Room, result: Result, says: str
) -> None:
    """Nothing at all fits, the default model does not, state does not, or no more files."""
    facts = DiskFacts(store, state, absent=(("d", 90 * MIB), ("huge", 2**40)), default="d")
    found = check_disk_space(facts)
    assert found.result is result
    assert says in found.detail
    assert (found.result is Result.OK) == (not found.fixes)
