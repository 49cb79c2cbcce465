"""The folder of engines while it changes."""

from __future__ import annotations

import errno
import json
import pathlib
from typing import TYPE_CHECKING

import pytest

from gemd.engine.builds.folder import discard, only_writer, publish, workplace
from gemd.errors import DiskFullError, OperationConflictError

if TYPE_CHECKING:
    from pathlib import Path


def target(folder: Path, text: str) -> Path:
    """A directory that is to become a build."""
    path = folder / "target"
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """The second one is told so at once, and may begin when the first has ended."""
    with (
        only_writer(tmp_path / "engines"),
        pytest.raises(OperationConflictError, match="another gemctl"),
        only_writer(tmp_path / "engines"),
    ):
        pass
    with only_writer(tmp_path / "engines"):
        pass


def test_the_folder_is_private(tmp_path: Path) -> None:
    """What is in it is run."""
    with only_writer(tmp_path / "gemd" / "engines"):
        assert (tmp_path / "gemd" / "engines").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(DiskFullError, match="Not a directory"), only_writer(tmp_path / "file/x"):
        pass


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Lustre is by default; an error of ours, with the reason."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("gemd.engine.builds.folder.fcntl.flock", missing)
    with pytest.raises(DiskFullError, match="lock") as caught, only_writer(tmp_path):
        pass
    assert caught.value.why == "Function not implemented"


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path: Path) -> None:
    """Half-built ones go; a build that was just being replaced comes back."""
    (tmp_path / ".work-llama-cpu" / "target").mkdir(parents=True)
    for name in (".old-llama-cuda", ".old-llama-cpu", "llama-cpu"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "engine.json").touch()
    with only_writer(tmp_path):
        names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", "llama-cpu", "llama-cuda"]


def test_an_interrupted_removal_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was half removed does not come back as a broken build."""
    place = tmp_path / "llama-cpu"
    publish(target(tmp_path, "x"), place, {})

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gemd.engine.builds.folder.shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            discard(place)
    with only_writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_workplace_is_empty_and_temporary(tmp_path: Path) -> None:
    """Also after a failure, also where an earlier one has left something."""
    (tmp_path / ".work-x").mkdir()
    (tmp_path / ".work-x" / "old").touch()

    def interrupted() -> None:
        with workplace(tmp_path, "x") as work:
            assert list(work.iterdir()) == []
            (work / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_build_takes_the_place_of_another(tmp_path: Path) -> None:
    """Whole, with its record, and nothing else stays; who reads the old one goes on."""
    place = tmp_path / "llama-cpu"
    publish(target(tmp_path, "old"), place, {"n": 1})
    with (place / "file").open() as open_file:
        publish(target(tmp_path, "new"), place, {"n": 2})
        assert open_file.read() == "old"
    assert (place / "file").read_text() == "new"
    assert json.loads((place / "engine.json").read_text()) == {"n": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["llama-cpu"]


def test_an_interrupt_between_the_renames_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build that worked is back in its place."""
    place = tmp_path / "llama-cpu"
    publish(target(tmp_path, "old"), place, {})
    new = target(tmp_path, "new")
    rename = pathlib.Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if path == new:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(pathlib.Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(new, place, {})
    assert (place / "file").read_text() == "old"


def test_a_removed_build_is_gone_with_its_bytes(tmp_path: Path) -> None:
    """The size is that of its files."""
    place = tmp_path / "llama-cpu"
    publish(target(tmp_path, "12345"), place, {})
    assert discard(place) == 5 + len("{}")
    assert list(tmp_path.iterdir()) == []
