"""Cache types, experts in main memory and devices: what a Load says is what llama.cpp does."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import TYPE_CHECKING, get_args

import pytest
from llama_cpp import llama_cpp as c

from gemd import wire
from gemd.errors import EngineMissingError
from gemd.footprint import Placement, gguf_shape, predict_gguf, read_gguf_header
from gemd.footprint.compute import SCORED_OUTPUTS
from gemd.footprint.memory import CACHE_BYTES, CacheType
from gemd.footprint.predict import DEFAULT_BATCH
from gemd.worker.llama.binding import Log
from gemd.worker.llama.devices import devices
from gemd.worker.llama.loading import load
from gemd.worker.llama.params import (
    BATCH_TOKENS,
    CACHE_TYPES,
    SCORED_TOKENS,
    experts_in_main_memory,
    model_params,
)
from tests.support.gemma4_files import architecture_of, write_header_only
from tests.support.llama import CHATML, loaded
from tests.support.measured import SEQUENCES, peak_after_a_prompt

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = list(range(5, 205))


def cached_bytes(path: Path, cache_type: wire.CacheType) -> tuple[int, int]:
    """What llama.cpp copies out of the cache for one prompt, and the tokens answered after it."""
    with loaded(path, context_tokens=1024, cache_type=cache_type) as bench:
        answer = bench.answer(PROMPT, max_tokens=4, ignore_eos=True)
        context = bench.engine._sequences._context
        return context.state_bytes(0), len(answer.tokens)


@pytest.mark.parametrize("cache_type", ["q8_0", pytest.param("q4_0", marks=pytest.mark.slow)])
def test_a_quantized_cache_answers_and_is_smaller(
    short_gemma3: Path, cache_type: CacheType
) -> None:
    """The same prompt takes as much less as the block sizes say, within what else is saved."""
    plain, _ = cached_bytes(short_gemma3, "f16")
    small, answered = cached_bytes(short_gemma3, cache_type)
    block, nbytes = CACHE_BYTES[cache_type]
    assert answered == 4
    assert small / plain == pytest.approx(nbytes / (block * 2), rel=0.02)


def test_wire_footprint_and_engine_mean_the_same_cache_types() -> None:
    """Three lists, because the wire imports nothing."""
    assert get_args(wire.CacheType) == get_args(CacheType) == tuple(CACHE_TYPES)


def test_the_formula_is_about_the_workers_steps() -> None:
    """Written twice, because footprint imports no engine."""
    assert (DEFAULT_BATCH, SCORED_OUTPUTS) == (BATCH_TOKENS, SCORED_TOKENS)


def test_experts_that_are_not_there_do_no_harm(smollm2: Path) -> None:
    """The table reaches llama.cpp; a dense model loads and answers as without it."""
    with loaded(smollm2, chat_template=CHATML, host_expert_layers=30) as bench:
        assert bench.answer([1, 2, 3], max_tokens=2, ignore_eos=True).tokens


def test_the_table_of_experts_names_each_layer_and_ends() -> None:
    """Every entry points to main memory; the last one is empty, which ends the table."""
    table = experts_in_main_memory(2)
    entries = [table[index] for index in range(3)]
    assert [entry.pattern for entry in entries] == [
        rb"blk\.0\.ffn_(up|down|gate|gate_up)_(ch|)exps",
        rb"blk\.1\.ffn_(up|down|gate|gate_up)_(ch|)exps",
        None,
    ]
    host = c._lib.ggml_backend_cpu_buffer_type
    assert {entry.buffer_type for entry in entries[:2]} == {host()}
    assert entries[2].buffer_type is None
    assert ctypes.sizeof(table) == 3 * 2 * ctypes.sizeof(ctypes.c_void_p)


def test_the_experts_of_the_first_layers_are_what_moves(tmp_path: Path) -> None:
    """llama.cpp's own words for each tensor of the 26B, of which nothing but a header is there."""
    path = tmp_path / "mixture.gguf"
    write_header_only(path, architecture_of("gemma4-26b-a4b"), "mixture")
    said: list[str] = []

    def write(_level: int, text: bytes, _: object) -> None:
        said.append(text.decode())

    log = c.llama_log_callback(write)
    c.llama_log_set(log, None)
    try:
        params = model_params(gpu_layers=0, host_expert_layers=3)
        params.no_alloc = True
        params.load_mode = c.LLAMA_LOAD_MODE_NONE
        c.llama_model_free(c.llama_model_load_from_file(str(path).encode(), params))
    finally:
        Log()
    moved = [line.split()[1] for line in said if "buffer type overridden to CPU" in line]
    names = ("ffn_gate_up_exps.weight", "ffn_down_exps.weight", "ffn_down_exps.scale")
    assert set(moved) == {f"blk.{layer}.{name}" for layer in range(3) for name in names}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_file_of_which_the_cpu_makes_a_copy_is_there_once(
    smollm2: Path, tmp_path: Path
) -> None:
    """Four-bit weights are rearranged for the vector units: such a file is read, not mapped.

    On a processor without those units nothing is copied, and reading it costs no more.
    """
    path = tmp_path / "q4_0.gguf"
    params = c.llama_model_quantize_default_params()
    params.allow_requantize = True
    params.ftype = c.LLAMA_FTYPE_MOSTLY_Q4_0
    assert c.llama_model_quantize(str(smollm2).encode(), str(path).encode(), params) == 0
    shape = gguf_shape(read_gguf_header(path))
    assert not shape.weights.better_mapped
    predicted = predict_gguf(
        shape, context_tokens=1024, max_sequences=SEQUENCES, placement=Placement()
    )
    peak = await peak_after_a_prompt(path, 1024, 520, threads=1)
    # Twice there, it would be a third more.
    assert predicted.host.total == pytest.approx(peak, rel=0.06)


def test_devices_are_those_of_the_library(smollm2: Path) -> None:
    """The CPU is always one; a GPU is there if and only if the library can offload."""
    found = devices()
    assert "CPU" in {device.name for device in found if device.kind == "cpu"}
    assert all(device.description for device in found)
    gpus = [device for device in found if device.kind in {"gpu", "integrated"}]
    assert bool(gpus) == bool(c.llama_supports_gpu_offload())
    with loaded(smollm2) as bench:
        assert bench.ready.devices == tuple(device.name for device in found)


@pytest.mark.skipif(bool(c.llama_supports_gpu_offload()), reason="needs a build without a GPU")
def test_layers_for_a_gpu_that_is_not_there_are_refused(smollm2: Path) -> None:
    """Instead of computing on the CPU and saying nothing; before a byte is read."""
    phases: list[str] = []
    message = wire.Load(
        path=str(smollm2), context_tokens=256, max_sequences=1, threads=1, gpu_layers=31
    )
    with pytest.raises(EngineMissingError) as caught:
        load(message, lambda phase, *_: phases.append(phase), time.monotonic)
    assert caught.value.advice[0] == "gemctl engine install"
    assert caught.value.metadata["gpu_layers"] == "31"
    assert "CPU" in caught.value.why
    assert not phases


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_is_read_instead_of_mapped_where_the_load_says_so(smollm2: Path) -> None:
    """A model for main memory is mapped by default."""

    def mappings() -> int:
        # Other models of this process may be of the same file.
        with open("/proc/self/maps", encoding="utf-8") as file:  # noqa: PTH123 - procfs
            return file.read().count(smollm2.resolve().name)

    def mapped(*, use_mmap: bool | None) -> bool:
        before = mappings()
        message = wire.Load(
            path=str(smollm2), context_tokens=256, max_sequences=1, threads=1, use_mmap=use_mmap
        )
        model = load(message, lambda *_: None, time.monotonic)
        try:
            return mappings() > before
        finally:
            model.close()

    assert mapped(use_mmap=None)
    assert not mapped(use_mmap=False)
