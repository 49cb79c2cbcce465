"""Where a model's bytes lie, by placement: the sums, and what moves when a placement does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.footprint import (
    GgufShape,
    LayerWeights,
    Method,
    Parts,
    Placement,
    Prediction,
    Weights,
    predict_gguf,
    profile_shape,
)
from gemd.footprint.compute import SCORED_OUTPUTS
from gemd.footprint.memory import CACHE_BYTES
from gemd.footprint.predict import GPU_CONTEXT_BYTES, Backend, process_bytes
from tests.support.gemma4_files import architecture_of

LAYERS = 12
ALL = LAYERS + 1

ARCHITECTURE: dict[str, Any] = {
    "name": "gemma4",
    "block_count": LAYERS,
    "embedding_length": 2048,
    "feed_forward_length": 8192,
    "vocab_size": 262_144,
    "expert_count": 128,
    "expert_used_count": 8,
    "expert_feed_forward_length": 704,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
    "attention.key_length": 512,
    "attention.value_length": 512,
    "attention.key_length_swa": 256,
    "attention.value_length_swa": 256,
    "attention.sliding_window": 512,
    "attention.sliding_window_pattern": [layer % 6 != 5 for layer in range(LAYERS)],
    "attention.shared_kv_layers": 2,
}
SIZES = {
    "embedding": 1_000_003,
    "per_layer_embedding": 500_000,
    "experts": 24_000_011,
    "output": 4096,
    "rest": 6_000_007,
}
SHAPE = profile_shape(ARCHITECTURE, SIZES)

placements = st.builds(
    Placement,
    gpu_layers=st.integers(0, ALL + 3),
    host_experts=st.integers(0, LAYERS + 3),
    cache_type=st.sampled_from(list(CACHE_BYTES)),
)


def predict(
    placement: Placement, *, shape: GgufShape = SHAPE, context: int = 8192, sequences: int = 4
) -> Prediction:
    """With the figures that these tests do not change."""
    return predict_gguf(shape, context_tokens=context, max_sequences=sequences, placement=placement)


def kv(prediction: Prediction) -> int:
    """On both devices."""
    return prediction.host.kv_cache + prediction.gpu.kv_cache


def test_everything_in_main_memory_leaves_a_gpu_alone() -> None:
    """Not even a driver's context; the weights are those of the file, once."""
    prediction = predict(Placement())
    assert prediction.gpu == Parts()
    assert prediction.gpu_peak == 0
    assert prediction.host.weights == sum(SIZES.values())
    assert prediction.method is Method.FORMULA


def test_everything_on_the_gpu_leaves_the_embeddings_in_main_memory() -> None:
    """A tied embedding is held on both sides, per-layer embeddings on the host's only."""
    prediction = predict(Placement(gpu_layers=ALL))
    host_only = SIZES["embedding"] + SIZES["per_layer_embedding"]
    assert prediction.host.weights == host_only
    assert prediction.gpu.weights == sum(SIZES.values()) - SIZES["per_layer_embedding"]
    assert prediction.host.kv_cache == 0
    assert prediction.gpu.overhead == GPU_CONTEXT_BYTES["cuda"]


def test_an_output_matrix_of_its_own_is_held_once() -> None:
    """With the output on the GPU, and nothing of it in main memory."""
    shape = profile_shape(ARCHITECTURE, SIZES | {"output": 900_000})
    assert not shape.weights.tied
    prediction = predict(Placement(gpu_layers=1), shape=shape)
    assert prediction.gpu.weights == 900_000
    assert prediction.host.weights == shape.weights.total - 900_000


def test_one_layer_on_the_gpu_is_the_output_the_next_the_last() -> None:
    """As llama.cpp counts; cache and weights of a layer go together."""
    output, last, none = (predict(Placement(gpu_layers=count)) for count in (1, 2, 0))
    assert output.gpu.weights == SIZES["output"] + SIZES["embedding"]
    assert output.gpu.kv_cache == 0
    layer = SHAPE.weights.layers[-1]
    assert last.gpu.weights - output.gpu.weights == layer.dense + layer.experts
    # The last two layers share the keys of earlier ones: there is nothing of theirs to move.
    assert last.gpu.kv_cache == 0
    own = predict(Placement(gpu_layers=4))
    assert own.gpu.kv_cache == none.host.kv_cache - own.host.kv_cache > 0


def test_experts_of_the_first_layers_stay_in_main_memory() -> None:
    """Exactly theirs; the GPU borrows one layer's at a time for long prompts."""
    all_there = predict(Placement(gpu_layers=ALL))
    three = predict(Placement(gpu_layers=ALL, host_experts=3))
    moved = sum(layer.experts for layer in SHAPE.weights.layers[:3])
    assert all_there.gpu.weights - three.gpu.weights == moved
    assert three.host.weights - all_there.host.weights == moved
    borrowed = max(layer.experts for layer in SHAPE.weights.layers[:3])
    assert three.gpu.compute - all_there.gpu.compute == borrowed


def test_experts_elsewhere_change_nothing_for_a_dense_model() -> None:
    """There are none to move."""
    dense = profile_shape(ARCHITECTURE, SIZES | {"experts": 0})
    assert predict(Placement(ALL, 5), shape=dense) == predict(Placement(ALL), shape=dense)


def test_a_projector_lies_with_the_layers() -> None:
    """On the GPU where there are layers, else in main memory."""
    shape = dataclasses.replace(SHAPE, projector=777)
    assert predict(Placement(), shape=shape).host.projector == 777
    on_gpu = predict(Placement(gpu_layers=3), shape=shape)
    assert (on_gpu.host.projector, on_gpu.gpu.projector) == (0, 777)


@given(placement=placements)
def test_nothing_gets_lost_between_the_devices(placement: Placement) -> None:
    """Weights add up, a tied embedding twice with the output on the GPU; KV is the same sum."""
    prediction = predict(placement)
    twice = SIZES["embedding"] if placement.gpu_layers else 0
    total = prediction.host.weights + prediction.gpu.weights
    assert total == sum(SIZES.values()) + twice
    alone = predict(Placement(cache_type=placement.cache_type))
    assert kv(prediction) == alone.host.kv_cache
    assert prediction.host_peak >= prediction.host.total
    assert prediction.gpu_peak >= prediction.gpu.total


@given(placement=placements, context=st.integers(1, 2**18), sequences=st.integers(1, 32))
def test_more_context_never_takes_less(placement: Placement, context: int, sequences: int) -> None:
    """Whoever makes a context smaller to make room gains by it: a step is 256 cells."""
    short = predict(placement, context=context, sequences=sequences)
    long = predict(placement, context=context + 256, sequences=sequences)
    assert long.host_peak >= short.host_peak
    assert long.gpu_peak >= short.gpu_peak
    assert kv(long) > kv(short)


def test_a_quantized_cache_takes_what_its_blocks_take() -> None:
    """34 and 18 bytes for 32 elements, against 64."""
    f16, q8, q4 = (kv(predict(Placement(cache_type=name))) for name in CACHE_BYTES)
    assert (q8 * 64, q4 * 64) == (f16 * 34, f16 * 18)


def test_published_sizes_of_gemma_4() -> None:
    """E4B needs 2.6 GiB of VRAM for weights; 26B-A4B with all experts on the host under 2."""
    gib = 1024**3
    e4b = profile_shape(
        architecture_of("gemma4-e4b"),
        {"embedding": int(0.54 * gib), "per_layer_embedding": int(2.15 * gib), "rest": 2 * gib},
    )
    assert predict(Placement(99), shape=e4b).gpu.weights / gib == pytest.approx(2.6, abs=0.1)
    mixture = profile_shape(
        architecture_of("gemma4-26b-a4b"),
        {
            "embedding": 605_552_640,
            "experts": 12_846_382_080,
            "output": 12_288,
            "rest": 971_591_800,
        },
    )
    assert predict(Placement(99, 99), shape=mixture).gpu.weights < 2 * gib


def test_a_load_onto_a_gpu_passes_one_tensor_through_main_memory() -> None:
    """Which is more than what stays, for a small context; a Mac's GPU uses the mapped pages."""
    shape = profile_shape(ARCHITECTURE, SIZES | {"rest": 9 * 2**33})

    def peak(backend: Backend) -> tuple[int, int]:
        prediction = predict_gguf(
            shape,
            context_tokens=256,
            max_sequences=1,
            placement=Placement(gpu_layers=ALL),
            backend=backend,
        )
        return prediction.host_peak, prediction.host.total

    most, left = peak("cuda")
    assert most - left > 5 * 2**30
    most, left = peak("metal")
    assert most - left == SCORED_OUTPUTS * 262_144 * 4


def test_the_prompt_cache_is_part_of_the_overhead() -> None:
    """Beside what the process takes without a model."""
    prediction = predict_gguf(
        SHAPE,
        context_tokens=256,
        max_sequences=1,
        placement=Placement(),
        prompt_cache_bytes=5,
    )
    assert prediction.host.overhead == process_bytes(SHAPE) + 5


def test_a_shape_without_layers_of_its_own_cache_has_none() -> None:
    """Weights decide about layers, the cache only about those that have one."""
    weights = Weights((LayerWeights(1),) * LAYERS, embedding=1, output=1)
    shape = GgufShape(dataclasses.replace(SHAPE.shape, layers=()), weights)
    assert kv(predict(Placement(3), shape=shape)) == 0
