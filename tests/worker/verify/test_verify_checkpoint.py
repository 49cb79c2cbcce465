"""DiffusionGemma in NVFP4: sound checkpoints, and damaged ones whose hashes were made to fit."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

from gemd.footprint import read_safetensors_header
from gemd.wire.quantize import MadeTensor
from gemd.wire.verify import Examine, Examined, WantedFile
from tests.support.tiny_diffusion import TINY, UNDERTRAINED, write_nvfp4
from tests.support.verify_files import PLENTY, looked_at, sha256, verdicts, with_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = ["sizes", "sha256", "container", "tensor-census", "scales", "sampled-error", "no-alloc-load"]
EXPERT = "model.decoder.layers.1.experts.2."


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", name="packed")
def _packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in the layout that the quantizer writes."""
    folder = tmp_path_factory.mktemp("checkpoint") / "packed"
    write_nvfp4(TINY, folder, "compressed-tensors", shard_bytes=1 << 30)
    return folder


@pytest.fixture(name="copy")
def _copy(packed: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    return shutil.copytree(packed, tmp_path / "copy")


def examined(folder: Path, *, engine: str = "diffusion", **more: object) -> Examined:
    """What the verifier says; sizes and hashes are said to be what they are."""
    files = tuple(
        WantedFile(
            name=each.name, path=str(each), size_bytes=each.stat().st_size, sha256=sha256(each)
        )
        for each in sorted(folder.iterdir())
    )
    values = {
        "path": str(folder),
        "engine": engine,
        "files": files,
        "quantization": "NVFP4",
        "memory_bytes": PLENTY,
    }
    return looked_at(Examine.model_validate(values | with_list(folder, more)))


@dataclass
class Stored:
    """The one file of weights of a checkpoint, in memory."""

    path: Path
    data: bytearray

    @classmethod
    def of(cls, folder: Path) -> Stored:
        """Read it."""
        [path] = folder.glob("*.safetensors")
        return cls(path, bytearray(path.read_bytes()))

    def tensor(self, name: str) -> memoryview:
        """Its bytes, to be changed."""
        header = read_safetensors_header(self.path)
        found = next(each for each in header.tensors if each.name == name)
        start = header.data_offset + found.begin
        return memoryview(self.data)[start : start + found.nbytes]

    def write(self) -> None:
        """Back to where it came from."""
        self.path.write_bytes(self.data)


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_sound_checkpoint_passes_everything_in_order(layout: str, tmp_path: Path) -> None:
    """Both layouts, dense layers packed too: near its source, and it answers as it was taught."""
    folder = tmp_path / "packed"
    write_nvfp4(TINY, folder, layout, dense=True)  # type: ignore[arg-type] # a str by pytest
    found = examined(folder, source=str(TINY), depth="full")
    assert list(verdicts(found)) == [*ALL, "smoke"]
    assert all(verdicts(found).values()), found
    assert found.left_out == ()
    smoke = found.checks[-1]
    assert "The capital of France is Paris." in smoke.detail
    assert 0 < (smoke.value or 0) < (smoke.limit or 0)


@pytest.mark.slow
def test_a_model_that_does_not_settle_is_found(tmp_path: Path) -> None:
    """Unless its source does not either: then it is not the quantization's fault."""
    found = examined(UNDERTRAINED, depth="full")
    assert not verdicts(found)["smoke"]
    assert "do not settle" in found.checks[-1].detail
    folder = tmp_path / "packed"
    write_nvfp4(UNDERTRAINED, folder, "compressed-tensors")
    found = examined(folder, depth="full", source=str(UNDERTRAINED))
    assert verdicts(found)["smoke"]
    assert "no better" in found.checks[-1].detail


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("weight_scale", b"\x7f", "a scale that is NaN"),
        ("weight_scale", b"\xb8", "a negative scale"),
        ("weight_global_scale", struct.pack("<f", float("nan")), "infinite or NaN"),
        ("weight_global_scale", struct.pack("<f", 0.0), "not positive"),
    ],
)
def test_a_scale_that_is_none_is_named(copy: Path, field: str, value: bytes, words: str) -> None:
    """The scale of a block, or of a whole matrix."""
    stored = Stored.of(copy)
    stored.tensor(f"{EXPERT}up_proj.{field}")[: len(value)] = value
    stored.write()
    found = examined(copy)
    assert list(verdicts(found).items())[-1] == ("scales", False)
    assert f"{EXPERT}up_proj.{field}" in found.checks[-1].detail
    assert words in found.checks[-1].detail


def test_exchanged_experts_are_named(copy: Path) -> None:
    """All their parts are there, in the right shapes, with sound scales."""
    stored = Stored.of(copy)
    other = "model.decoder.layers.1.experts.3."
    for field in ("weight_packed", "weight_scale", "weight_global_scale"):
        one, two = (stored.tensor(f"{each}down_proj.{field}") for each in (EXPERT, other))
        kept = bytes(one)
        one[:] = two
        two[:] = kept
    stored.write()
    found = examined(copy, source=str(TINY))
    assert list(verdicts(found).items())[-1] == ("sampled-error", False)
    assert "experts." in found.checks[-1].detail
    assert (found.checks[-1].value or 0) > 1


def test_a_missing_part_of_an_expert_is_named(copy: Path) -> None:
    """By the census, before anything is loaded."""
    stored = Stored.of(copy)
    name = f"{EXPERT}gate_proj.weight_scale"
    size = int.from_bytes(stored.data[:8], "little")
    header = json.loads(stored.data[8 : 8 + size])
    header[name.replace("weight_scale", "weight_skale")] = header.pop(name)
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    stored.data[8 : 8 + size] = text[:size]
    stored.write()
    (copy / "model.safetensors.index.json").unlink(missing_ok=True)
    stored.path.rename(copy / "model.safetensors")
    found = examined(copy)
    assert list(verdicts(found).items())[-1] == ("tensor-census", False)
    assert f"{name} is missing" in found.checks[-1].detail


def test_a_shard_that_is_cut_off_is_no_container(copy: Path) -> None:
    """Also where its size and hash were made to fit."""
    stored = Stored.of(copy)
    del stored.data[-100:]
    stored.write()
    found = examined(copy)
    assert list(verdicts(found).items())[-1] == ("container", False)


def test_gate_and_up_share_their_scale_in_what_is_made_here(tmp_path: Path) -> None:
    """Others may have written it as they like: this engine reads both."""
    folder = tmp_path / "packed"
    write_nvfp4(TINY, folder, "compressed-tensors", shared_scale=False, shard_bytes=1 << 30)
    assert all(verdicts(examined(folder)).values())
    plan = _plan(folder)
    found = examined(folder, tensors=plan)
    assert list(verdicts(found).items())[-1] == ("tensor-census", False)
    assert "do not share their global scale" in found.checks[-1].detail
    wrong = (plan[0].model_copy(update={"kind": "F64"}), *plan[1:])
    found = examined(folder, tensors=wrong)
    assert f"{plan[0].name} is {plan[0].kind}, not F64" in found.checks[-1].detail


def _plan(folder: Path) -> tuple[MadeTensor, ...]:
    [path] = folder.glob("*.safetensors")
    header = read_safetensors_header(path)
    return tuple(
        MadeTensor(
            name=each.name,
            kind=each.dtype,
            shape=each.shape,
            file=path.name,
            offset=header.data_offset + each.begin,
            size_bytes=each.nbytes,
            sha256="",
        )
        for each in header.tensors
    )


def test_a_checkpoint_that_nothing_runs_is_looked_at_as_files(tmp_path: Path) -> None:
    """Of another architecture, and without torch."""
    found = examined(TINY, engine="none")
    assert list(verdicts(found)) == ["sizes", "sha256", "container", "scales"]
    assert all(verdicts(found).values())
    folder = shutil.copytree(TINY, tmp_path / "copy")
    stored = Stored.of(folder)
    stored.data[-2:] = b"\x80\x7f"
    stored.write()
    found = examined(folder, engine="none")
    assert list(verdicts(found).items())[-1] == ("scales", False)


def test_without_memory_nothing_is_loaded(packed: Path) -> None:
    """It is said, and is no failure."""
    found = examined(packed, depth="full", memory_bytes=1000)
    assert "smoke" not in verdicts(found)
    assert [each.check for each in found.left_out] == ["smoke"]
