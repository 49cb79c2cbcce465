"""The figures of the shipped profiles, against real files and against llama.cpp."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from math import prod
from pathlib import Path

import pytest

from gemd.catalog import Catalog, HubSource, PackageSource, Profile
from gemd.catalog.architecture import GROUPS
from gemd.footprint.gguf import OmittedArray, read_gguf_header
from tests.catalog.measure_profiles import groups_of
from tests.support.gemma4_files import GEMMA4, architecture_of, tensors_of
from tests.support.models import CACHE, PROFILES, ensure_model

SMALL = ("smollm2-135m", "gemma3-270m")
DIFFUSION = "diffusiongemma-26b-a4b"
BYTES = {"bf16": Fraction(2), "fp8": Fraction(1), "nvfp4": Fraction(9, 16)}
METADATA = range(15_780_000, 15_860_000)
"""Bytes of header, tokenizer and chat template in a published file of Gemma 4."""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """What is shipped."""
    return Catalog.load(PROFILES)


def test_the_catalogue_is_what_was_promised(catalog: Catalog) -> None:
    """The embedded default, a base model for tests, Gemma 4, and its diffusion model."""
    ids = {profile.id for profile in catalog.profiles}
    assert ids == {*SMALL, *GEMMA4, DIFFUSION}


def test_the_default_comes_from_hub_or_package(catalog: Catalog) -> None:
    """It answers greedily and not for ever, and its bytes are pinned."""
    default = catalog.resolve("smollm2-135m")
    assert default.roles == ("default",)
    assert default.kind == "chat"
    assert default.context_tokens == 8192
    assert default.defaults.temperature == 0
    # Without these it says «I'm so glad you're here.» until its context is full.
    assert default.defaults.repeat_penalty > 1
    assert default.defaults.max_tokens == 1024
    assert default.licence_acceptance == ""
    assert default.variants[0].sha256
    assert [source.kind for source in default.variants[0].sources] == ["hub", "python-package"]


def test_the_base_model_has_terms(catalog: Catalog) -> None:
    """Four packages make it."""
    base = catalog.resolve("gemma3-270m")
    assert (base.kind, base.licence_acceptance) == ("base", "Gemma Terms of Use")
    [source] = base.variants[0].sources
    assert isinstance(source, PackageSource)
    assert len(source.parts) == 4


@pytest.mark.parametrize("model", SMALL)
def test_a_small_profile_says_what_its_file_says(catalog: Catalog, model: str) -> None:
    """Hyperparameters, weights by group and their number are those of the real file."""
    profile = catalog.resolve(model)
    header = read_gguf_header(ensure_model(model, CACHE))
    name = profile.architecture["name"]
    assert header.metadata["general.architecture"] == name
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, OmittedArray)
    facts = {f"{name}.vocab_size": tokens.count, **header.metadata}
    for key, value in profile.architecture.items():
        if key != "name":
            found = facts[f"{name}.{key}"]
            assert found == (pytest.approx(value) if isinstance(value, float) else value), key
    assert profile.parameters == sum(prod(tensor.shape) for tensor in header.tensors)
    weights = profile.variants[0].weights
    assert weights is not None
    assert weights.model_dump() == groups_of((each.name, each.nbytes) for each in header.tensors)


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, dict[str, int]]]:
    """What llama.cpp's quantizer would write for each variant, in bytes by group."""
    # In a process of its own: the quantizer speaks through a log that all of a process share.
    done = subprocess.run(
        [sys.executable, "-m", "tests.catalog.measure_profiles", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    figures: dict[str, dict[str, dict[str, int]]] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("model", GEMMA4)
def test_weights_are_what_llama_cpp_would_write(
    catalog: Catalog, measured: dict[str, dict[str, dict[str, int]]], model: str
) -> None:
    """Each group and the whole of every variant, within 0.2 %."""
    for variant in catalog.resolve(model).variants:
        assert variant.weights is not None
        said = variant.weights.model_dump()
        groups = measured[model][variant.id]
        assert said == {group: pytest.approx(size, rel=0.002) for group, size in groups.items()}
        assert variant.weights.total == pytest.approx(sum(groups.values()), rel=0.002)


@pytest.mark.parametrize("model", GEMMA4)
def test_a_file_is_its_weights_and_its_tokenizer(catalog: Catalog, model: str) -> None:
    """The published sizes leave the same 15.8 MB beside the weights in every file."""
    for variant in catalog.resolve(model).variants:
        assert variant.weights is not None
        assert variant.size_bytes - variant.weights.total in METADATA, variant.id


@pytest.mark.parametrize("model", GEMMA4)
def test_gemma_4_prefers_what_was_trained_for_four_bits(catalog: Catalog, model: str) -> None:
    """Google's QAT file first, then Q4_K_M, then Q8_0, each with its reason."""
    profile = catalog.resolve(model)
    assert [variant.id for variant in profile.variants] == ["qat-q4_0", "q4_k_m", "q8_0"]
    for variant in profile.variants:
        [source] = variant.sources
        assert isinstance(source, HubSource)
        assert source.file == variant.file_name
        assert variant.announced
        assert variant.why.endswith(".")
    [first, *_] = profile.variants
    assert first.sources[0].origin.startswith("google/")


@pytest.mark.parametrize("model", GEMMA4)
def test_gemma_4_has_its_published_properties(catalog: Catalog, model: str) -> None:
    """Licence, context, sampling and size."""
    profile = catalog.resolve(model)
    assert profile.licence == "Apache-2.0"
    assert profile.licence_acceptance == ""
    assert profile.context_tokens == profile.architecture["context_length"]
    assert profile.context_tokens == (131072 if "-e" in model else 262144)
    defaults = profile.defaults
    assert (defaults.temperature, defaults.top_k, defaults.top_p) == (1.0, 64, 0.95)
    assert "strong" in profile.roles
    assert ("verifier" in profile.roles) == ("-e" in model)
    assert {"text", "image"} <= set(profile.modalities)


@pytest.mark.parametrize("model", GEMMA4)
def test_parameters_are_those_of_the_tensors(catalog: Catalog, model: str) -> None:
    """Active are those that a token is multiplied with: no lookup table, no unused expert."""
    profile = catalog.resolve(model)
    sizes = {
        each.name: prod(each.shape)
        for each in tensors_of(architecture_of(model))
        if each.name != "rope_freqs.weight"
    }
    assert profile.parameters == sum(sizes.values())
    idle = sizes.get("per_layer_token_embd.weight", 0)
    count, used = (profile.architecture.get(f"expert_{key}", 1) for key in ("count", "used_count"))
    assert isinstance(count, int)
    assert isinstance(used, int)
    experts = sum(size for name, size in sizes.items() if "_exps.weight" in name)
    idle += experts * (count - used) // count
    assert profile.active_parameters == (profile.parameters - idle if idle else 0)


def test_quality_ranks_follow_the_benchmarks(catalog: Catalog) -> None:
    """No two are equal, and what ranks higher answers more expert questions."""
    rated = [profile for profile in catalog.profiles if profile.benchmarks]
    rated.sort(key=lambda profile: profile.quality)
    assert len({profile.quality for profile in catalog.profiles}) == len(catalog.profiles)
    assert len(rated) == 6
    scores = [profile.benchmarks["gpqa_diamond"] for profile in rated]
    assert scores == sorted(scores)
    for small in SMALL:
        assert 0 < catalog.resolve(small).quality < rated[0].quality
    assert all(0 < score < 100 for profile in rated for score in profile.benchmarks.values())


def test_the_fast_tier_is_outranked_by_the_strong_ones_it_drafts_for(catalog: Catalog) -> None:
    """The small verifiers check its drafts, and rank below it."""
    fast = catalog.resolve(DIFFUSION)
    assert fast.roles == ("fast",)
    above = {profile.id for profile in catalog.profiles if profile.quality > fast.quality}
    assert above == {"gemma4-12b", "gemma4-26b-a4b", "gemma4-31b"}


def _diffusion_figures(profile: Profile) -> dict[str, int]:
    figures = {}
    for group in GROUPS:
        value = profile.architecture[f"parameters.{group}"]
        assert isinstance(value, int)
        figures[group] = value
    return figures


def test_the_diffusion_models_sizes_follow_from_its_groups(catalog: Catalog) -> None:
    """Parameters times bytes of their element type, within 0.1 % of what is published."""
    profile = catalog.resolve(DIFFUSION)
    figures = _diffusion_figures(profile)
    assert profile.parameters == sum(figures.values()) - figures["vision"]
    for variant in profile.variants:
        assert variant.formats is not None
        formats = variant.formats.model_dump()
        size = sum(figures[group] * BYTES[formats[group]] for group in GROUPS)
        assert variant.size_bytes == pytest.approx(float(size), rel=0.001)
        assert variant.engine == "diffusion"
        assert variant.requires.vendors == ("nvidia",)
        assert variant.requires.capability == (8, 0)
        assert variant.several_files


def test_the_diffusion_models_text_weights_are_17_7_gb(catalog: Catalog) -> None:
    """NVIDIA's checkpoint without its vision tower."""
    profile = catalog.resolve(DIFFUSION)
    variant = profile.variants[0]
    assert variant.id == "nvfp4-nvidia"
    assert variant.formats is not None
    formats = variant.formats.model_dump()
    figures = _diffusion_figures(profile)
    text = sum(figures[group] * BYTES[formats[group]] for group in GROUPS if group != "vision")
    assert float(text) == pytest.approx(17.67e9, rel=0.001)
