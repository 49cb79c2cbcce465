"""DiffusionGemma's memory, against the figures that were published or counted."""

from __future__ import annotations

from typing import Any

import pytest

from gemd.errors import BadModelFileError
from gemd.footprint import DiffusionShape, diffusion_shape, predict_diffusion, weights_by_headers
from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
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
    """20 to 21.5 GB, as DESIGN §5 computes it; and KV by its formula."""
    prediction = predict_diffusion(shape(NVIDIA), context_tokens=8192)
    assert 20.0 <= prediction.gpu.total / GB <= 21.5
    assert prediction.gpu.kv_cache == 20_480 * 8192 + 204_800 * 1023
    assert prediction.gpu.output / GB == pytest.approx(0.294, abs=0.005)
    assert prediction.host.weights == 0


def test_the_cache_follows_from_the_shapes() -> None:
    """DESIGN §5's figures; of a window, the last token is the one that looks back."""
    found = shape(NVIDIA)
    assert found.cached == 20_480
    assert found.windowed == 204_800
    assert found.window - 1 == 1_023
    assert found.copied == 4096


def test_short_contexts_do_not_fill_the_window() -> None:
    """Below 1023 tokens all layers grow alike."""
    prediction = predict_diffusion(shape(NVIDIA), context_tokens=100)
    assert prediction.gpu.kv_cache == 100 * (20_480 + 204_800)


def test_more_canvases_take_more_of_all_but_the_weights() -> None:
    """Each has its own cache."""
    one = predict_diffusion(shape(NVIDIA), context_tokens=8192).gpu
    four = predict_diffusion(shape(NVIDIA), context_tokens=8192, sequences=4).gpu
    assert four.kv_cache == 4 * one.kv_cache
    assert four.weights == one.weights
    assert four.total > one.total


def test_plain_weights_need_no_room_to_unpack() -> None:
    """Packed ones take a layer's experts in bf16: 1.52 GB."""
    assert shape({}).unpacked == 0
    assert shape(NVIDIA).unpacked / GB == pytest.approx(1.52, abs=0.01)


def test_headers_tell_what_is_loaded() -> None:
    """Without the towers for images, whose embeddings a text-only worker never needs."""
    names = (
        "model.decoder.layers.0.x",
        "model.encoder.vision_tower.y",
        "model.encoder.embed_vision.z",
    )
    header = SafetensorsHeader(
        tuple(SafeTensor(name, "U8", (10**i,), 0, 10**i) for i, name in enumerate(names)), {}, 0, 0
    )
    assert weights_by_headers([header, header]) == 2
    assert weights_by_headers([header], media=True) == 111
    assert diffusion_shape(ARCHITECTURE, NVIDIA, weights=5).weights == 5


@pytest.mark.parametrize(
    "changes, formats, key",
    [
        ({}, {"experts": "int3"}, "formats.experts"),
        ({}, {"others": "bf16"}, "formats.others"),
        ({"parameters.experts": -1}, {}, "parameters.experts"),
        ({"parameters.experts": "many"}, {}, "parameters.experts"),
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
