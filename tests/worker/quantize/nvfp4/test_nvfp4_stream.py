"""The tiny model from float to NVFP4: what is written, and that nothing is lost on the way."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gemd.errors import (
    BadModelFileError,
    ContentMismatchError,
    DiskFullError,
    InvalidRequestError,
    ModelNotFoundError,
)
from gemd.worker.quantize.files import SPARE_BYTES
from gemd.worker.quantize.nvfp4 import make_nvfp4
from tests.support import nvfp4_reference as reference
from tests.support.diffusion import bench
from tests.support.nvfp4_runs import (
    SMALL,
    StopError,
    content_of,
    killed,
    order_of,
    peak_of,
    quietly,
    run,
    stopping,
    write_real_experts,
    write_split,
)
from tests.support.tiny_diffusion import ANSWERS, TINY, change_json, read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.wire.quantize import Made, Progress

INDEX: Final = "model.safetensors.index.json"
JOURNAL: Final = "journal.jsonl"
FIRST: Final = "model-00001-of-00003.safetensors"
GIB: Final = 1024**3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """The tiny model with packed experts, made in one go."""
    target = tmp_path_factory.mktemp("whole")
    return target, run(TINY, target)


@pytest.mark.parametrize("dense", [False, True])
def test_the_engine_answers_sixteen_of_sixteen_from_it(
    tmp_path: Path,
    dense: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Experts in NVFP4, and dense layers too: every answer to the letter."""
    run(TINY, tmp_path, quantize_dense=dense)
    with bench(tmp_path) as packed:
        assert packed.ready.compute in {"reference", "dequantize"}
        assert {question: packed.answer(question) for question in ANSWERS} == ANSWERS


def test_every_tensor_is_what_the_formula_makes_of_it(whole: tuple[Path, Made]) -> None:
    """Packed experts to the last bit, gate and up with one scale; all else in bf16."""
    target, _ = whole
    made = read_tensors(target)
    for name, tensor in read_tensors(TINY).items():
        layer, _, field = name.rpartition(".experts.")
        if not layer:
            assert torch.equal(made.pop(name), tensor.bfloat16()), name
            continue
        for expert, fused in enumerate(tensor.float().numpy()):
            matrices = np.split(fused, 2) if field == "gate_up_proj" else [fused]
            paths = ("gate_proj", "up_proj") if field == "gate_up_proj" else ("down_proj",)
            factor = reference.factor_of(*matrices)
            for path, matrix in zip(paths, matrices, strict=True):
                stem = f"{layer}.experts.{expert}.{path}"
                codes, scales = reference.quantize(matrix, factor, four_over_six=True)
                np.testing.assert_array_equal(made.pop(f"{stem}.weight_packed").numpy(), codes)
                found = made.pop(f"{stem}.weight_scale").view(torch.uint8).numpy()
                np.testing.assert_array_equal(found, scales)
                scale = made.pop(f"{stem}.weight_global_scale")
                assert scale.tolist() == [np.float32(1) / factor]
    assert not made


def test_what_is_said_is_what_was_written(whole: tuple[Path, Made]) -> None:
    """Sizes and SHA-256 of all files and tensors; files of others are carried over."""
    target, made = whole
    files = content_of(target)
    assert {each.name: (each.size_bytes, each.sha256) for each in made.files} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    for each in made.tensors:
        data = files[each.file][each.offset : each.offset + each.size_bytes]
        assert hashlib.sha256(data).hexdigest() == each.sha256
    places = json.loads(files[INDEX])["weight_map"]
    assert places == {each.name: each.file for each in made.tensors}
    shards = {name for name in files if name.endswith(".safetensors")}
    assert set(places.values()) == shards
    assert len(shards) == 4
    assert all(len(files[name]) <= SMALL.shard_bytes for name in shards)
    beside = {path.name for path in TINY.iterdir()} - {"model.safetensors", "config.json"}
    assert all(files[name] == (TINY / name).read_bytes() for name in beside)
    assert files.keys() == beside | shards | {INDEX, "config.json"}
    assert (made.fallbacks, made.resumed_bytes) == (0, 0)
    assert made.versions["torch"] == torch.__version__


def test_other_programs_read_the_files(whole: tuple[Path, Made]) -> None:
    """By safetensors' own loader, with the types and shapes that were announced."""
    target, made = whole
    found = {
        name: tensor
        for path in target.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    assert {each.name: each.shape for each in made.tensors} == {
        name: tuple(tensor.shape) for name, tensor in found.items()
    }
    # A number that is not aligned could not be used where the file is mapped.
    width = {"F32": 4, "BF16": 2, "U8": 1, "F8_E4M3": 1}
    assert all(each.offset % width[each.kind] == 0 for each in made.tensors)


def test_progress_counts_the_bytes_of_the_result(tmp_path: Path) -> None:
    """From nothing to everything, twice: as they are made, and as they are read back."""
    said: list[Progress] = []
    made = run(TINY, tmp_path, told=said.append)
    total = sum(each.size_bytes for each in made.tensors)
    assert said[0].phase == "planning"
    for phase in ("quantizing", "checking"):
        counts = [each.current_bytes for each in said if each.phase == phase]
        assert counts == sorted(counts)
        assert (counts[0], counts[-1]) == (0, total)
    assert {each.total_bytes for each in said[1:]} == {total}


def test_killed_at_random_tensors_it_ends_with_the_same_bytes(
    tmp_path: Path, whole: tuple[Path, Made]
) -> None:
    """Two processes end with SIGKILL, each further on; the third try is finished."""
    draw = random.Random(8)
    for _ in range(2):
        killed(TINY, tmp_path, draw.randint(20, 60))
        assert not list(tmp_path.glob("*.safetensors"))
        assert not (tmp_path / INDEX).exists()
    made = run(TINY, tmp_path)
    assert content_of(tmp_path) == content_of(whole[0])
    assert made.tensors == whole[1].tensors
    assert 0 < made.resumed_bytes < sum(each.size_bytes for each in made.tensors)


@pytest.mark.parametrize("step", [17, pytest.param(5, marks=pytest.mark.slow)])
def test_ended_again_and_again_it_goes_on(
    tmp_path: Path, whole: tuple[Path, Made], step: int
) -> None:
    """Wherever a try is ended, the next one needs less; a torn line of the journal is no harm."""
    resumed = [0]
    for at in range(1, 1000, step):
        try:
            made = run(TINY, tmp_path, told=stopping(at))
        except StopError:
            journal = tmp_path / JOURNAL
            if step == 17 and journal.exists():
                with journal.open("ab") as file:
                    file.write(b'{"tensor":"model.decoder.no')
            continue
        resumed.append(made.resumed_bytes)
        break
    assert resumed[-1] > 0
    assert content_of(tmp_path) == content_of(whole[0])


def test_bytes_behind_the_journal_are_written_again(
    tmp_path: Path, whole: tuple[Path, Made]
) -> None:
    """What a power cut left of unsynced data counts for nothing."""
    with pytest.raises(StopError):
        run(TINY, tmp_path, told=stopping(60))
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    done = {json.loads(line).get("tensor") for line in lines}
    for each in whole[1].tensors:
        path = tmp_path / f"{each.file}.part"
        if path.exists() and each.name not in done:
            with path.open("r+b") as file:
                file.seek(each.offset)
                file.write(b"\xa5" * each.size_bytes)
    run(TINY, tmp_path)
    assert content_of(tmp_path) == content_of(whole[0])


def test_files_that_vanish_are_made_again(tmp_path: Path, whole: tuple[Path, Made]) -> None:
    """The journal is believed of files that are there."""
    with pytest.raises(StopError):
        run(TINY, tmp_path, told=stopping(150))
    (tmp_path / "model-00001-of-00004.safetensors.part").unlink()
    run(TINY, tmp_path)
    assert content_of(tmp_path) == content_of(whole[0])


def test_what_the_disk_gives_back_otherwise_is_told_and_made_again(
    tmp_path: Path, whole: tuple[Path, Made]
) -> None:
    """One byte that changed between writing and reading."""
    victim = tmp_path / "model-00002-of-00004.safetensors.part"

    def told(progress: Progress) -> None:
        if progress.phase == "checking" and not progress.current_bytes:
            data = bytearray(victim.read_bytes())
            data[-100] ^= 1
            victim.write_bytes(data)

    with pytest.raises(ContentMismatchError, match="model-00002"):
        run(TINY, tmp_path, told=told)
    assert not (tmp_path / INDEX).exists()
    run(TINY, tmp_path)
    assert content_of(tmp_path) == content_of(whole[0])


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float32,
        pytest.param(torch.float16, marks=pytest.mark.slow),
    ],
)
def test_a_source_in_several_files_gives_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    """Gate and up in different files share their scale; half, bf16 and float32 are read."""
    split, one = tmp_path / "split", tmp_path / "one"
    write_split(split, dtype=dtype)
    one.mkdir()
    for file in TINY.iterdir():
        shutil.copy(file, one)
    tensors = {name: tensor.to(dtype) for name, tensor in read_tensors(TINY).items()}
    save_file(tensors, one / "model.safetensors", metadata={"format": "pt"})
    run(split, tmp_path / "a", quantize_dense=True)
    run(one, tmp_path / "b", quantize_dense=True)
    made, same = read_tensors(tmp_path / "a"), read_tensors(tmp_path / "b")
    assert made.keys() == same.keys()
    assert all(_same(made[name], same[name]) for name in made)
    gates = [name for name in made if name.endswith("mlp.gate_proj.weight_global_scale")]
    assert len(gates) == 4
    for name in gates:
        assert torch.equal(made[name], made[name.replace("gate_proj", "up_proj")])


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def test_another_order_or_another_source_starts_anew(
    tmp_path: Path, whole: tuple[Path, Made]
) -> None:
    """Nothing of an earlier try gets into a result that it is not of."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(TINY, source)
    with pytest.raises(StopError):
        run(source, target, told=stopping(100), quantize_dense=True)
    with pytest.raises(StopError):
        run(source, target, told=stopping(100))
    tensors = read_tensors(source)
    changed = tensors | {"model.decoder.norm.weight": tensors["model.decoder.norm.weight"] + 1}
    save_file(changed, source / "model.safetensors", metadata={"format": "pt"})
    assert run(source, target).resumed_bytes == 0
    # And over a finished one, whose source is younger than it.
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    assert run(source, target).resumed_bytes == 0
    assert content_of(target) == content_of(whole[0])


def test_a_disk_without_room_is_told_before_and_during(
    tmp_path: Path, whole: tuple[Path, Made]
) -> None:
    """With the numbers; what was made until then is gone on with."""
    target = tmp_path / "target"
    total = sum(each.size_bytes for each in whole[1].tensors)
    order = order_of(TINY, target)
    left = [SPARE_BYTES + total - 1]

    def free(_: Path) -> int:
        return left.pop() if len(left) > 1 else left[0]

    with pytest.raises(DiskFullError) as caught:
        make_nvfp4(order, quietly, limits=SMALL, free=free)
    assert caught.value.metadata["missing_bytes"] == "1"
    assert caught.value.metadata["needed_bytes"] == str(total)
    # Room in the beginning, and for a while; then somebody else takes it.
    left = [SPARE_BYTES - 5, SPARE_BYTES, SPARE_BYTES + total]
    with pytest.raises(DiskFullError, match="5 bytes are missing"):
        make_nvfp4(order, quietly, limits=SMALL, free=free)
    assert run(TINY, target).resumed_bytes > 0
    assert content_of(target) == content_of(whole[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value: float) -> None:
    """The tensor of the source and the layer that it would become; no result."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(TINY, source)
    tensors = read_tensors(source)
    name = "model.decoder.layers.2.experts.gate_up_proj"
    tensors[name][5, 100, 3] = value
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModelFileError, match=r"experts\.5\.up_proj") as caught:
        run(source, target)
    assert caught.value.metadata["tensor"] == name
    assert not (target / INDEX).exists()


def test_what_cannot_be_quantized_is_refused_at_once(tmp_path: Path) -> None:
    """Packed weights, another model, no model, a device that is not there."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(TINY, source)
    with pytest.raises(InvalidRequestError, match="cuda:77"):
        run(source, target, device="cuda:77")
    change_json(source / "config.json", {"quantization_config": {"quant_method": "modelopt"}})
    with pytest.raises(BadModelFileError, match="quantized already"):
        run(source, target)
    change_json(source / "config.json", {"quantization_config": None, "model_type": "gemma4"})
    with pytest.raises(BadModelFileError, match="gemma4"):
        run(source, target)
    with pytest.raises(ModelNotFoundError):
        run(tmp_path / "nowhere", target)
    assert not list(target.iterdir())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_experts(tmp_path: Path) -> None:
    """Real widths: far below one GiB, imports included, and the same for five times the experts."""
    peaks = []
    for experts in (3, 15):
        source, target = tmp_path / f"source-{experts}", tmp_path / f"target-{experts}"
        write_real_experts(source, experts)
        peaks.append(peak_of(source, target, quantize_dense=True))
        shutil.rmtree(source)
        shutil.rmtree(target)
    assert max(after for _, after in peaks) < GIB // 2
    grown = [after - before for before, after in peaks]
    assert grown[1] < grown[0] + 16 * 1024**2
