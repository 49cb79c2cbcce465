"""Real GGUF files, sound ones and damaged ones whose sizes and hashes were made to fit."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from llama_cpp._ggml import libggml

from gemd.wire.verify import WantedFile
from gemd.worker.verify.errors import FEW_ROWS, ROWS, sampled_rows
from tests.support.llama import CHATML
from tests.support.verify_files import (
    Pair,
    damaged,
    looked_at,
    order_for,
    plan_of,
    verdicts,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Of = Callable[[str], memoryview]

FILES = ["sizes", "sha256", "container", "tensor-census", "scales", "sampled-error"]


def test_a_sound_file_passes_everything_in_order(pair: Pair) -> None:
    """Names, order and figures of the checks; three layers talk nonsense, as their source does."""
    path = pair.quantized("Q4_0")
    found = looked_at(
        order_for(
            path,
            source=str(pair.source),
            tensors=plan_of(path),
            depth="full",
            chat_template=CHATML,
        )
    )
    last = ["no-alloc-load", "kl-divergence", "top-1", "perplexity", "smoke"]
    assert list(verdicts(found)) == [*FILES, *last]
    assert all(verdicts(found).values()), found
    assert found.left_out == ()
    by_name = {each.check: each for each in found.checks}
    assert 0.08 < (by_name["sampled-error"].value or 0) < 0.172
    assert 0.0 < (by_name["kl-divergence"].value or 0) < (by_name["kl-divergence"].limit or 0)
    assert "21 Q4_0" in by_name["tensor-census"].detail


def test_what_was_pulled_is_not_compared(pair: Pair) -> None:
    """Without a source and a plan nothing is said of them, and the rest is checked."""
    found = looked_at(order_for(pair.quantized("Q4_0")))
    assert list(verdicts(found)) == ["sizes", "sha256", "container", "scales", "no-alloc-load"]
    assert all(verdicts(found).values())


def test_a_flipped_bit_is_found_and_its_tensor_named(pair: Pair, tmp_path: Path) -> None:
    """The hash of the file shows it, and those of its tensors where."""

    def flip(of: Of) -> None:
        of("blk.1.attn_k.weight")[1000] ^= 1

    good = pair.quantized("Q4_0")
    bad = damaged(good, tmp_path / good.name, flip)
    order = order_for(bad, tensors=plan_of(good))
    file = order_for(good).files[0].model_copy(update={"path": str(bad)})
    found = looked_at(order.model_copy(update={"files": (file,)}))
    assert verdicts(found) == {"sizes": True, "sha256": False}
    assert "damaged: blk.1.attn_k.weight of 29 tensors" in found.checks[-1].detail
    assert "nothing after it was checked" in found.checks[-1].detail


def test_a_file_that_is_gone_or_too_short_is_told_by_its_size(pair: Pair, tmp_path: Path) -> None:
    """Nothing else is looked at then."""
    order = order_for(pair.quantized("Q4_0"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(order.path).read_bytes()[:5000])
    size = order.files[0].size_bytes
    for path, words in ((cut, f"5000 bytes, not {size}"), (tmp_path / "none", "No such file")):
        file = WantedFile(name="m.gguf", path=str(path), size_bytes=size)
        found = looked_at(order.model_copy(update={"path": str(path), "files": (file,)}))
        assert verdicts(found) == {"sizes": False}
        assert words in found.checks[0].detail


def test_a_truncated_file_is_no_container(pair: Pair, tmp_path: Path) -> None:
    """Also where its size and hash were made to fit."""
    cut = tmp_path / "cut.gguf"
    data = pair.quantized("Q4_0").read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    found = looked_at(order_for(cut))
    assert verdicts(found) == {"sizes": True, "sha256": True, "container": False}
    assert "truncated" in found.checks[-1].detail


def test_a_tensor_that_is_missing_is_found_twice(pair: Pair, tmp_path: Path) -> None:
    """By the census against the source, and without a source by llama.cpp."""
    bad = without(pair.quantized("Q4_0"), tmp_path / "bad.gguf", {"blk.2.ffn_up.weight"})
    found = looked_at(order_for(bad, source=str(pair.source)))
    assert list(verdicts(found).items())[-1] == ("tensor-census", False)
    assert "blk.2.ffn_up.weight is missing" in found.checks[-1].detail
    found = looked_at(order_for(bad))
    assert list(verdicts(found).items())[-1] == ("no-alloc-load", False)
    assert "blk.2.ffn_up.weight" in found.checks[-1].detail


def test_a_type_that_was_not_planned_is_named(pair: Pair) -> None:
    """The plan says what each tensor has to be."""
    path = pair.quantized("Q4_0")
    first, *rest = plan_of(path)
    plan = (first.model_copy(update={"kind": "Q6_K"}), *rest)
    found = looked_at(order_for(path, tensors=plan))
    assert not found.checks[-1].passed
    assert f"{first.name} is {first.kind}, not Q6_K" in found.checks[-1].detail


@pytest.mark.parametrize("bits", [0x7E00, 0x7C00], ids=["nan", "infinity"])
def test_a_scale_that_is_no_number_is_named(pair: Pair, tmp_path: Path, bits: int) -> None:
    """One block of one tensor is enough."""

    def spoil(of: Of) -> None:
        of("blk.0.ffn_down.weight")[18 * 777 : 18 * 777 + 2] = bits.to_bytes(2, "little")

    bad = damaged(pair.quantized("Q4_0"), tmp_path / "bad.gguf", spoil)
    found = looked_at(order_for(bad))
    assert list(verdicts(found).items())[-1] == ("scales", False)
    assert "blk.0.ffn_down.weight (Q4_0)" in found.checks[-1].detail


def test_two_swapped_tensors_are_named(pair: Pair, tmp_path: Path) -> None:
    """Of one shape and type, so that nothing but their weights tells them apart."""

    def swap(of: Of) -> None:
        one, other = of("blk.0.attn_q.weight"), of("blk.2.attn_q.weight")
        kept = bytes(one)
        one[:] = other
        other[:] = kept

    bad = damaged(pair.quantized("Q4_0"), tmp_path / "bad.gguf", swap)
    found = looked_at(order_for(bad, source=str(pair.source)))
    assert list(verdicts(found).items())[-1] == ("sampled-error", False)
    last = found.checks[-1]
    assert ".attn_q.weight (Q4_0)" in last.detail
    assert (last.value or 0) > 1.0 > (last.limit or 0)


def test_noise_between_the_sampled_rows_is_heard(pair: Pair, tmp_path: Path) -> None:
    """Weights of one layer that are noise where no sample is taken make it answer differently."""

    def spoil(of: Of) -> None:
        rows = np.frombuffer(of("blk.1.ffn_down.weight"), np.uint8).reshape(576, -1, 18)
        random = np.random.default_rng(0)
        noisy = sorted(set(range(576)) - set(sampled_rows(576, ROWS)))
        rows[noisy, :, 2:] = random.integers(0, 256, (len(noisy), *rows[0, :, 2:].shape))

    bad = damaged(pair.quantized("Q4_0"), tmp_path / "bad.gguf", spoil)
    found = looked_at(order_for(bad, source=str(pair.source), depth="full", chat_template=CHATML))
    assert verdicts(found)["sampled-error"]
    assert not verdicts(found)["kl-divergence"], found
    assert "smoke" not in verdicts(found)


def test_what_does_not_fit_is_left_out_and_says_so(pair: Pair) -> None:
    """Without memory nothing is loaded; it has neither passed nor failed."""
    found = looked_at(
        order_for(pair.quantized("Q4_0"), source=str(pair.source), depth="full", memory_bytes=1000)
    )
    assert "kl-divergence" not in verdicts(found)
    assert "smoke" not in verdicts(found)
    assert [each.check for each in found.left_out] == ["kl-divergence", "smoke"]
    assert all("1000 are free" in each.why for each in found.left_out)


def test_a_source_that_is_quantized_itself_is_no_verdict(pair: Pair) -> None:
    """Nothing can be compared with it, and that is not the file's fault."""
    path = pair.quantized("Q4_0")
    found = looked_at(order_for(path, source=str(path)))
    assert all(verdicts(found).values())
    assert [each.check for each in found.left_out] == ["sampled-error"]


@pytest.mark.parametrize("damage", ["none", "transposed", "exchanged"])
def test_one_expert_among_many_is_looked_at_by_itself(tmp_path: Path, damage: str) -> None:
    """A single wrong one of sixteen would drown in the error of the whole tensor."""
    experts = np.random.default_rng(0).normal(0, 0.02, (16, 64, 64)).astype(np.float16)
    stored = experts.astype(np.float32).copy()
    if damage == "transposed":
        stored[11] = stored[11].T.copy()
    elif damage == "exchanged":
        stored[[3, 11]] = stored[[11, 3]]
    source, path = tmp_path / "source.gguf", tmp_path / "made.gguf"
    _write(source, experts, None)
    _write(path, _q4_0(stored), gguf.GGMLQuantizationType.Q4_0)
    found = looked_at(order_for(path, source=str(source)))
    made = {each.check: each for each in found.checks}["sampled-error"]
    assert made.passed == (damage == "none")
    assert FEW_ROWS < 64
    if damage != "none":
        assert "blk.0.ffn_up_exps.weight [" in made.detail


def _q4_0(weights: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
    out = np.empty((rows.shape[0], rows.shape[1] // 32 * 18), np.uint8)
    function = libggml.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    function(2, rows.ctypes.data, out.ctypes.data, 0, rows.shape[0], rows.shape[1], None)
    return out.reshape(*weights.shape[:-1], -1)


def _write(path: Path, weights: np.ndarray, kind: gguf.GGMLQuantizationType | None) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.ffn_up_exps.weight", weights, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "Q4_0"])
def test_real_quantizations_of_a_whole_model_pass(whole: Pair, kind: str) -> None:
    """SmolLM2 135M: every check, with its figures in the output."""
    path = whole.quantized(kind)
    found = looked_at(
        order_for(
            path,
            source=str(whole.source),
            tensors=plan_of(path),
            quantization=kind,
            depth="full",
            chat_template=CHATML,
            windows=8,
        )
    )
    for each in found.checks:
        print(kind, each.check, each.passed, each.value, each.limit, each.detail)  # noqa: T201
    assert all(verdicts(found).values())
    assert "smoke" in verdicts(found)
