"""DiffusionGemma's memory, against the figures that were published or counted."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import BadModelFileError
from gemd.footprint import (
    DiffusionShape,
    Parts,
    diffusion_shape,
    predict_diffusion,
    weights_by_headers,
)
from gemd.footprint.safetensors import BITS, SafeTensor, SafetensorsHeader
from tests.support.gemma4_files import architecture_of

GB = 1e9
ARCHITECTURE: dict[str, Any] = architecture_of("diffusiongemma-26b-a4b")
NVIDIA = {"experts": "nvfp4"}
REDHAT = {"experts": "nvfp4", "dense": "nvfp4"}


def shape(formats: dict[str, str], *, media: bool = False) -> DiffusionShape:
    """Of the shipped profile."""
    return diffusion_shape(ARCHITECTURE, formats, media=media)


@pytest.mark.parametrize(
    "formats, media, expected",
    [
        (NVIDIA, False, 17.67),
        (NVIDIA, True, 18.82),
        (REDHAT, True, 18.05),
        ({}, True, 51.65),
        (NVIDIA | {"attention": "nvfp4", "dense": "nvfp4"}, True, 16.45),
    ],
)
def test_weights_are_those_of_the_published_checkpoints(
    formats: dict[str, str],
    media: bool,  # noqa: FBT001 - a parameter of the test
    expected: float,
) -> None:
    """Within 0.2 %."""
    assert shape(formats, media=media).weights / GB == pytest.approx(expected, rel=0.002)


def test_a_24_gb_card_holds_the_published_checkpoint_at_8_k() -> None:
    """19 to 20 GB: DESIGN §5 less a layer's experts in bf16, which nothing unpacks any more."""
    prediction = predict_diffusion(shape(NVIDIA), context_tokens=8192)
    assert 19.0 <= prediction.gpu.total / GB <= 20.0
    assert prediction.gpu.kv_cache == 20_480 * (8192 + 256) + 204_800 * (1023 + 256 + 256)
    # Logits of one canvas in float32, slices of them, and a few rows of a slice.
    assert prediction.gpu.output == 256 * (262_144 * 4 + 16_384 * 10) + 16 * 16_384 * 48
    assert prediction.gpu.output <= 350e6
    assert prediction.host.weights == 0
    # Sorted: sixteen rows of the vocabulary.
    assert prediction.gpu_peak - prediction.gpu.total == 16 * 262_144 * 36


def test_the_cache_follows_from_the_shapes() -> None:
    """DESIGN §5's figures; of a window, the last token is the one that looks back."""
    found = shape(NVIDIA)
    assert found.cached == 20_480
    assert found.windowed == 204_800
    assert found.window - 1 == 1_023
    assert (found.layers, found.canvas) == (30, 256)


def test_short_contexts_do_not_fill_the_window() -> None:
    """Below 1279 tokens all layers grow alike, each with a canvas behind."""
    prediction = predict_diffusion(shape(NVIDIA), context_tokens=100)
    assert prediction.gpu.kv_cache == (100 + 256) * (20_480 + 204_800)


def test_more_canvases_take_more_of_all_but_weights_and_logits() -> None:
    """Each has its own cache; all share the logits of one."""
    one = predict_diffusion(shape(NVIDIA), context_tokens=8192).gpu
    four = predict_diffusion(shape(NVIDIA), context_tokens=8192, sequences=4).gpu
    assert four.kv_cache == 4 * one.kv_cache
    assert (four.weights, four.output) == (one.weights, one.output)
    assert four.compute > one.compute


@given(st.integers(1, 200_000), st.integers(1, 16), st.booleans())
def test_more_room_never_takes_less(tokens: int, sequences: int, gpu: bool) -> None:  # noqa: FBT001 - drawn
    """Of tokens or of canvases; and peaks are above what stays."""
    found = shape(NVIDIA)

    def peak(tokens: int, sequences: int) -> int:
        predicted = predict_diffusion(found, context_tokens=tokens, sequences=sequences, gpu=gpu)
        assert predicted.host_peak >= predicted.host.total
        assert predicted.gpu_peak >= predicted.gpu.total
        return predicted.host_peak + predicted.gpu_peak

    assert peak(tokens, sequences) <= peak(tokens + 1, sequences) < peak(tokens + 1, sequences + 1)


def test_on_the_processor_all_of_it_is_in_main_memory() -> None:
    """With PyTorch's process; packed experts need room to be unpacked, a bounded one."""
    packed = predict_diffusion(shape(NVIDIA), context_tokens=4096, gpu=False)
    assert packed.gpu == Parts()
    assert packed.host.weights == shape(NVIDIA).weights
    assert packed.host.overhead == 490 * 2**20
    plain = predict_diffusion(shape({}), context_tokens=4096, gpu=False)
    assert packed.host.compute - plain.host.compute == 256 * 2**20
    on_gpu = [predict_diffusion(shape(each), context_tokens=4096).gpu for each in (NVIDIA, {})]
    assert on_gpu[0].compute == on_gpu[1].compute


def header(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> SafetensorsHeader:
    """Of a file with these tensors."""
    found = [
        SafeTensor(name, dtype, size, 0, prod(size) * BITS[dtype] // 8)
        for name, (dtype, size) in tensors.items()
    ]
    return SafetensorsHeader(tuple(found), {}, 0, 0)


def test_headers_tell_what_is_loaded() -> None:
    """Without towers for images, the table that is there twice, and scales of activations."""
    names = {
        "model.decoder.layers.0.x": ("U8", (1,)),
        "model.encoder.vision_tower.y": ("U8", (10,)),
        "model.encoder.embed_vision.z": ("U8", (100,)),
        "lm_head.weight": ("U8", (1000,)),
        "model.decoder.layers.0.x.input_scale": ("F32", ()),
        "model.decoder.layers.0.self_attn.k_scale": ("F32", ()),
    }
    one = header(names)
    assert weights_by_headers([one, one]) == 2
    assert weights_by_headers([one], media=True) == 111
    assert diffusion_shape(ARCHITECTURE, NVIDIA, weights=5).weights == 5


def test_plain_weights_take_what_is_computed_in_and_packed_ones_what_is_stored() -> None:
    """A float32 file for bf16 is loaded in half of its bytes; codes and scales stay as they are."""
    one = header(
        {
            "model.decoder.norm.weight": ("F32", (100,)),
            "model.decoder.layers.0.experts.0.up_proj.weight": ("U8", (8, 8)),
            "model.decoder.layers.0.experts.0.up_proj.weight_scale": ("F8_E4M3", (8, 1)),
            "model.decoder.layers.0.experts.0.up_proj.weight_scale_2": ("F32", ()),
        }
    )
    assert weights_by_headers([one]) == 200 + 64 + 8 + 4
    assert weights_by_headers([one], element_bytes=4) == 400 + 64 + 8 + 4


@pytest.mark.parametrize(
    "changes, formats, key",
    [
        ({}, {"experts": "int3"}, "formats.experts"),
        ({}, {"others": "bf16"}, "formats.others"),
        ({"parameters.experts": -1}, {}, "parameters.experts"),
        ({"parameters.experts": "many"}, {}, "parameters.experts"),
        ({"canvas_length": -1}, {}, "canvas_length"),
        ({"expert_used_count": True}, {}, "diffusion-gemma.expert_used_count"),
    ],
)
def test_absurd_tables_are_refused_by_name(
    changes: dict[str, Any], formats: dict[str, str], key: str
) -> None:
    """The error names the key."""
    with pytest.raises(BadModelFileError) as caught:
        diffusion_shape(ARCHITECTURE | changes, formats)
    assert caught.value.metadata["key"] == key


def test_an_architecture_without_parameters_is_none() -> None:
    """There would be nothing to compute weights from."""
    bare = {key: value for key, value in ARCHITECTURE.items() if not key.startswith("parameters")}
    with pytest.raises(BadModelFileError):
        diffusion_shape(bare, {})
