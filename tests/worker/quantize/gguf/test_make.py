"""Whole files: equal to llama.cpp's own, or an error that can be gone on from."""

from __future__ import annotations

import hashlib
import itertools
import os
from typing import TYPE_CHECKING

import pytest

from gemd.errors import (
    BadModelFileError,
    ContentMismatchError,
    DiskFullError,
    InvalidRequestError,
)
from gemd.footprint.gguf import read_gguf_header
from gemd.worker.quantize.files import SPARE_BYTES
from gemd.worker.quantize.gguf import finished
from gemd.worker.quantize.gguf.journal import JOURNAL
from tests.support.gguf_orders import digest, made, order, parts_of, tensors
from tests.support.llama_quantizer import oracle
from tests.support.unquantized import split, write_importance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.wire.quantize import Made, Order, Progress


@pytest.mark.parametrize(
    "model, quantization",
    [
        *itertools.product(("dense", "experts"), ("Q8_0", "Q4_K_M", "Q4_0")),
        ("dense", "Q6_K"),
        ("experts", "Q5_K_M"),
        ("experts", "IQ4_XS"),
        ("dense", "BF16"),
        ("experts", "F16"),
    ],
)
def test_the_file_is_that_of_llama_cpp_byte_for_byte(
    models: dict[str, Path], target: Path, model: str, quantization: str
) -> None:
    """Tensors, types, metadata, order; and what is reported of it is so."""
    report = made(order(models[model], target, quantization, threads=2))
    expected = target / "expected.gguf"
    oracle(models[model], expected, quantization)
    assert tensors(target / "r.gguf") == tensors(expected)
    assert digest(target / "r.gguf") == digest(expected)
    (file,) = report.files
    assert (file.name, file.sha256) == ("r.gguf", digest(expected))
    assert file.size_bytes == expected.stat().st_size
    assert {t.name: (t.kind, t.sha256) for t in report.tensors} == tensors(expected)
    data = expected.read_bytes()
    for tensor in report.tensors:
        piece = data[tensor.offset : tensor.offset + tensor.size_bytes]
        assert hashlib.sha256(piece).hexdigest() == tensor.sha256
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["r.gguf", JOURNAL, "expected.gguf"]
    )


@pytest.mark.parametrize("model, quantization", [("dense", "Q4_0"), ("experts", "Q4_K_M")])
def test_so_it_is_with_an_importance_matrix(
    models: dict[str, Path], target: Path, model: str, quantization: str
) -> None:
    """Each expert has its own weights, one of them none."""
    matrix = write_importance(target / "i.gguf", models[model])
    made(order(models[model], target, quantization, importance=matrix, threads=2))
    oracle(models[model], target / "expected.gguf", quantization, importance=matrix)
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")


def test_so_it_is_with_a_source_in_parts_and_one_of_f16(
    models: dict[str, Path], target: Path
) -> None:
    """The parts have the tensors in another order than the result."""
    f16 = order(models["experts"], target, "F16")
    made(f16)
    source = target / "f16.gguf"
    (target / "r.gguf").replace(source)
    (target / JOURNAL).unlink()
    made(order(split(source, 3), target, "Q4_0"))
    oracle(source, target / "expected.gguf", "Q4_0")
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")


def test_progress_rises_to_the_size_of_the_file_twice(
    models: dict[str, Path], target: Path
) -> None:
    """Once while it is written, once while it is read back."""
    seen: list[Progress] = []
    size = made(order(models["dense"], target), seen.append).files[0].size_bytes
    assert list(dict.fromkeys(step.phase for step in seen)) == [
        "planning", "quantizing", "checking",
    ]  # fmt: skip
    for phase in ("quantizing", "checking"):
        steps = [step for step in seen if step.phase == phase]
        counts = [step.current_bytes for step in steps]
        assert counts == sorted(counts)
        assert size - 1024 <= counts[-1] <= size == steps[0].total_bytes


def test_an_order_given_again_ends_at_once(models: dict[str, Path], target: Path) -> None:
    """Also without its source; not if the result is damaged in size, or another is asked for."""
    first = order(models["dense"], target)
    result = made(first)
    assert finished(first) == result
    assert finished(order(models["dense"], target, "Q8_0")) is None
    assert finished(order(models["experts"], target)) is None
    assert finished(order(models["dense"], target, importance=models["dense"])) is None
    (target / "r.gguf").write_bytes(b"short")
    assert finished(first) is None
    assert made(first) == result


def test_a_stopped_work_is_gone_on_with(models: dict[str, Path], target: Path) -> None:
    """Whatever `report` raises leaves what was written."""

    class StoppedError(Exception):
        pass

    def stop(step: Progress) -> None:
        if step.current_bytes > 1_200_000:
            raise StoppedError

    what = order(models["dense"], target, threads=2)
    with pytest.raises(StoppedError):
        made(what, stop)
    assert sorted(path.name for path in target.iterdir()) == [JOURNAL, "r.gguf.part"]
    seen: list[Progress] = []
    result = made(what, seen.append)
    assert result.resumed_bytes > 500_000
    assert seen[1].current_bytes > result.resumed_bytes
    oracle(models["dense"], target / "expected.gguf", "Q4_0")
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")


def test_other_work_does_not_go_on_where_this_ended(models: dict[str, Path], target: Path) -> None:
    """Nor does the same with a source that has changed, or a part that has."""
    whole = made(order(models["dense"], target)).files[0].sha256

    def restarted(what: Order, spoil: Callable[[], object]) -> Made:
        for path in target.iterdir():
            path.unlink()

        def stop(step: Progress) -> None:
            if step.current_bytes > 1_200_000:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            made(order(models["dense"], target), stop)
        spoil()
        return made(what)

    what = order(models["dense"], target)
    part, source = target / "r.gguf.part", models["dense"]
    assert restarted(what, lambda: None).resumed_bytes > 0
    assert restarted(order(source, target, "Q8_0"), lambda: None).resumed_bytes == 0
    assert restarted(what, source.touch).resumed_bytes == 0
    assert restarted(what, part.unlink).resumed_bytes == 0
    zeros = bytes(part.stat().st_size if part.exists() else 3_000_000)
    spoiled = restarted(what, lambda: part.write_bytes(zeros))
    assert (spoiled.resumed_bytes, spoiled.files[0].sha256) == (0, whole)


def test_a_byte_that_the_disk_did_not_keep_is_found_and_made_again(
    models: dict[str, Path], target: Path
) -> None:
    """The file is read back before it gets its name; the next try makes that tensor alone."""
    what = order(models["dense"], target)
    part = target / "r.gguf.part"

    def damage(step: Progress) -> None:
        if step.phase == "checking" and part.exists():
            with part.open("r+b") as file:
                file.seek(-50_000, os.SEEK_END)
                file.write(b"\xff\xfe\xfd")

    with pytest.raises(ContentMismatchError) as caught:
        made(what, damage)
    assert not (target / "r.gguf").exists()
    lost = caught.value.metadata["tensor"]
    again: list[str] = []
    made(what, lambda step: again.append(step.name))
    assert {name for name in again if name} == {lost}
    oracle(models["dense"], target / "expected.gguf", "Q4_0")
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")


def test_a_full_disk_is_said_before_and_during_and_gone_on_with(
    models: dict[str, Path], target: Path
) -> None:
    """With what is needed, and without using the last that is free."""
    what = order(models["dense"], target)
    with pytest.raises(DiskFullError) as caught:
        made(what, free=lambda _: SPARE_BYTES)
    needed = int(caught.value.metadata["needed_bytes"])
    assert needed == int(caught.value.metadata["missing_bytes"]) > 2_000_000
    spaces = iter([10**12])
    with pytest.raises(DiskFullError):
        made(order(models["dense"], target, "F32"), free=lambda _: next(spaces, SPARE_BYTES))
    made(what)


def test_numbers_that_are_none_are_refused_by_name(models: dict[str, Path], target: Path) -> None:
    """Q4_0 would hide one of them in its block."""
    path = target / "bad.gguf"
    path.write_bytes(models["dense"].read_bytes())
    header = read_gguf_header(path)
    victim = next(tensor for tensor in header.tensors if tensor.name == "blk.3.ffn_up.weight")
    with path.open("r+b") as file:
        file.seek(header.data_offset + victim.offset + 1000)
        file.write(b"\xc0\x7f")
    with pytest.raises(BadModelFileError, match=r"blk\.3\.ffn_up\.weight"):
        made(order(path, target))


def test_a_source_that_is_written_to_meanwhile_makes_no_result(
    models: dict[str, Path], target: Path
) -> None:
    """Half of it would be of one model, half of another."""
    path = target / "m.gguf"
    path.write_bytes(models["dense"].read_bytes())

    def touch(step: Progress) -> None:
        if step.current_bytes > 1_200_000:
            path.touch()

    with pytest.raises(BadModelFileError, match="written to"):
        made(order(path, target), touch)
    assert not (target / "r.gguf").exists()


def test_names_and_mixtures_are_checked(models: dict[str, Path], target: Path) -> None:
    """A name is a file's, not a path."""
    for name in ("", "../r.gguf", "a/b.gguf"):
        what = order(models["dense"], target).model_copy(update={"name": name})
        with pytest.raises(InvalidRequestError):
            made(what)
    with pytest.raises(InvalidRequestError, match="no quantization"):
        made(order(models["dense"], target, "Q4"))


def test_each_part_goes_when_it_is_used_up(
    models: dict[str, Path], target: Path, tmp_path: Path
) -> None:
    """Which is the point: there need not be room for both. The last one, after the result."""
    first = parts_of(models["experts"], tmp_path / "source")
    counts: list[int] = []
    result = made(
        order(first, target, discard=True),
        lambda _: counts.append(len([*first.parent.iterdir()])),
    )
    assert list(dict.fromkeys(counts)) == [3, 2, 1]
    assert not [*first.parent.iterdir()]
    assert sorted(path.name for path in target.iterdir()) == [JOURNAL, "r.gguf"]
    oracle(models["experts"], target / "expected.gguf", "Q4_0")
    assert digest(target / "expected.gguf") == result.files[0].sha256
    assert finished(order(first, target, discard=True)) == result


def test_a_try_of_another_order_spoils_nothing_that_is_complete(
    models: dict[str, Path], target: Path
) -> None:
    """It ends before its first byte, or before its first line in the journal."""
    first = order(models["dense"], target)
    report = made(first)
    good, journal = digest(target / "r.gguf"), (target / JOURNAL).read_bytes()
    # A process is killed with its part made, and nothing in it; then with a hole of the full size.
    for size in (0, report.files[0].size_bytes):
        with (target / "r.gguf.part").open("wb") as file:
            file.truncate(size)
        assert finished(first) == report
        assert digest(target / "r.gguf") == good
    # From its first byte on there is no record of what it overwrites.
    with pytest.raises(DiskFullError):
        made(order(models["experts"], target), free=lambda _: 0)
    assert not (target / JOURNAL).exists() or (target / JOURNAL).read_bytes() != journal
    assert finished(first) is None
    assert made(first).resumed_bytes == 0
    assert digest(target / "r.gguf") == good


def test_a_journal_without_its_part_is_none(models: dict[str, Path], target: Path) -> None:
    """With nothing finished in it either: the part may be of any size."""
    what = order(models["dense"], target)
    with pytest.raises(DiskFullError):
        made(what, free=lambda _: 0)
    part = target / "r.gguf.part"
    part.write_bytes(b"x" * (part.stat().st_size + 4096))
    made(what)
    oracle(models["dense"], target / "expected.gguf", "Q4_0")
    assert digest(target / "r.gguf") == digest(target / "expected.gguf")
