"""The source of an NVFP4 checkpoint: while it is used up, when it changes, and when it is gone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import pytest
import torch
from safetensors.torch import save_file

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.worker.quantize.nvfp4.journal import JOURNAL
from tests.support.nvfp4_runs import StopError, content_of, run, stopping, write_split
from tests.support.tiny_diffusion import TINY, read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.wire.quantize import Progress

INDEX: Final = "model.safetensors.index.json"
FIRST: Final = "model-00001-of-00003.safetensors"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def linked_source(folder: Path) -> Path:
    """The tiny model in three files that are links, as in the hub client's cache."""
    blobs, links = folder / "blobs", folder / "snapshot"
    write_split(blobs)
    links.mkdir()
    for path in blobs.iterdir():
        (links / path.name).symlink_to(path)
    return links


def test_a_used_up_source_is_removed_while_the_work_goes_on(tmp_path: Path) -> None:
    """Each link with what it points to, as soon as nothing of it is needed; never before."""
    write_split(tmp_path / "kept")
    run(tmp_path / "kept", tmp_path / "expected")
    source, blobs = linked_source(tmp_path), tmp_path / "blobs"
    target = tmp_path / "target"
    left: list[int] = []

    def told(progress: Progress) -> None:
        if progress.phase == "quantizing":
            left.append(len(list(blobs.glob("*.safetensors"))))

    run(source, target, told=told, discard_source=True)
    assert left[0] == 3
    assert {1, 2} & set(left), "one was removed before the last was read"
    assert not list(blobs.glob("*.safetensors"))
    assert {path.name for path in source.iterdir()} == {
        path.name for path in TINY.iterdir() if path.suffix != ".safetensors"
    } | {INDEX}
    assert content_of(target) == content_of(tmp_path / "expected")


@pytest.mark.parametrize("at", [120, 260, pytest.param(200, marks=pytest.mark.slow)])
def test_ended_with_a_part_of_the_source_gone_it_still_goes_on(tmp_path: Path, at: int) -> None:
    """What was removed is known from the journal, and what was made of it is there."""
    write_split(tmp_path / "kept")
    run(tmp_path / "kept", tmp_path / "expected")
    source, target = linked_source(tmp_path), tmp_path / "target"
    with pytest.raises(StopError):
        run(source, target, told=stopping(at), discard_source=True)
    made = run(source, target, discard_source=True)
    assert not list(source.glob("*.safetensors"))
    assert content_of(target) == content_of(tmp_path / "expected")
    again = run(source, target, discard_source=True)
    assert (again.tensors, again.files) == (made.tensors, made.files)
    assert again.resumed_bytes == sum(each.size_bytes for each in made.tensors)


def test_a_source_that_is_gone_too_early_is_told(tmp_path: Path) -> None:
    """By the file's name, and nothing that is there is lost."""
    source, target = tmp_path / "source", tmp_path / "target"
    write_split(source)
    with pytest.raises(StopError):
        run(source, target, told=stopping(60))
    journal = (target / JOURNAL).read_bytes()
    (source / FIRST).rename(tmp_path / "elsewhere")
    with pytest.raises(BadModelFileError, match=FIRST) as caught:
        run(source, target)
    assert caught.value.metadata["file"] == FIRST
    assert (target / JOURNAL).read_bytes() == journal
    (tmp_path / "elsewhere").rename(source / FIRST)
    assert run(source, target).resumed_bytes > 0


def test_nothing_beside_the_weights_is_left_of_another_try(tmp_path: Path) -> None:
    """What the source had then and has no more, what was half copied, what another order made."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(TINY, source)
    (source / "notes.json").write_text("{}")
    with pytest.raises(StopError):
        run(source, target, told=stopping(60))
    (source / "notes.json").unlink()
    for name in ("tokenizer.json.part", "r.gguf", ".hidden"):
        (target / name).write_text("left")
    made = run(source, target)
    assert made.resumed_bytes > 0
    beside = {path.name for path in TINY.iterdir()} - {"model.safetensors"}
    assert {each.name for each in made.files} - {each.file for each in made.tensors} == {
        *beside,
        INDEX,
    }
    assert content_of(target).keys() == {each.name for each in made.files}


def test_a_source_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    """Between its header and its first byte, or later; it is not removed, and made anew next."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(TINY, source)
    file = source / "model.safetensors"
    tensors = read_tensors(source)
    changed = tensors | {"model.decoder.norm.weight": tensors["model.decoder.norm.weight"] + 1}
    for at in (2, 100):
        left = iter(reversed(range(at)))

        def told(_: Progress, left: Iterator[int] = left) -> None:
            if next(left, None) == 0:
                save_file(changed, file, metadata={"format": "pt"})

        with pytest.raises(BadModelFileError, match="written to meanwhile"):
            run(source, target, told=told, discard_source=True)
        assert file.exists()
        assert not (target / INDEX).exists()
    run(source, target)
    run(source, tmp_path / "expected")
    assert content_of(target) == content_of(tmp_path / "expected")


def test_a_finished_result_is_that_of_its_own_order_only(tmp_path: Path) -> None:
    """Of one whose source cannot be read it is none."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(TINY, source)
    run(source, target)
    (source / "config.json").write_text("{")
    for where in (source, tmp_path / "nowhere"):
        with pytest.raises((BadModelFileError, ModelNotFoundError)):
            run(where, target)
