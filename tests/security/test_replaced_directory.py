"""The socket's directory stands in others, and who may rename one of them may put another there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gemd.errors import ConfigError
from gemd.paths import ensure_private_directory

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Three directories below one that only this user can change."""
    tmp_path.chmod(0o700)
    made = tmp_path / "a" / "b" / "gemd"
    made.mkdir(parents=True, mode=0o700)
    for each in (made, made.parent, made.parent.parent):
        each.chmod(0o700)
    return made


@pytest.mark.parametrize("above", [0, 1])
@pytest.mark.parametrize("mode", [0o707, 0o777])
def test_a_directory_above_that_all_may_write_to(private: Path, above: int, mode: int) -> None:
    """Not only the nearest one."""
    folder = private.parents[above]
    folder.chmod(mode)
    with pytest.raises(ConfigError, match=r"private files") as caught:
        ensure_private_directory(private)
    assert f"{folder} is writable for everybody" in caught.value.why


@root_only
@pytest.mark.parametrize("above", [0, 1])
def test_a_directory_above_that_is_anothers(private: Path, above: int) -> None:
    """Its owner may rename what is in it, whatever its mode."""
    folder = private.parents[above]
    os.chown(folder, NOBODY, -1)
    folder.chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        ensure_private_directory(private)
    assert f"{folder} belongs to user {NOBODY}" in caught.value.why


@root_only
def test_a_directory_above_of_another_group(private: Path) -> None:
    """All who are in it may rename, too."""
    os.chown(private.parent, -1, NOBODY)
    private.parent.chmod(0o770)
    with pytest.raises(ConfigError) as caught:
        ensure_private_directory(private)
    assert f"writable for group {NOBODY}" in caught.value.why


@pytest.mark.parametrize("mode", [0o1777, 0o770, 0o755])
def test_what_keeps_others_from_renaming_is_enough(private: Path, mode: int) -> None:
    """A sticky directory such as /tmp, and the group that only this user has."""
    private.parents[1].chmod(mode)
    os.chown(private.parents[1], -1, os.getgid())
    ensure_private_directory(private)
