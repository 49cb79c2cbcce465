"""The figures in a profile: a user may give all that a plan goes by, and errors help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.catalog import QuantizedSource, RepositorySource
from gemd.catalog.choice import profile_sized
from gemd.catalog.files import read_profile
from tests.catalog.written import SHA, refused, written

if TYPE_CHECKING:
    from pathlib import Path

GEMMA = f"""
id = "tiny"
display_name = "My Gemma"
family = "gemma4"
licence = "Apache-2.0"
parameters = 4_628_569_379
active_parameters = 2_279_759_139
quality = 12
context_tokens = 131072
roles = ["strong", "verifier"]
modalities = ["text", "image"]

[benchmarks]
mmlu_pro = 60
gpqa_diamond = 43.4

[projector]
repository = "me/mine"
file = "mmproj.gguf"
size_bytes = 100

[architecture]
name = "gemma4"
block_count = 2
embedding_length = 64
feed_forward_length = 128
"rope.freq_base" = 1e6
"attention.head_count" = 8
"attention.head_count_kv" = [8, 1]
"attention.sliding_window_pattern" = [true, false]

[[variants]]
id = "q4_0"
quantization = "Q4_0"
file_name = "mine.gguf"
size_bytes = 1000
sha256 = "{SHA}"
why = "Made by hand."

[variants.weights]
embedding = 100
per_layer_embedding = 200
experts = 300
output = 50
rest = 250

[variants.requires]
vendors = ["nvidia", "amd"]
compute_capability = "8.9"

[[variants.sources]]
kind = "local"
path = "/models/mine.gguf"
"""


def test_a_users_profile_of_a_gemma_has_all_figures(tmp_path: Path) -> None:
    """Every figure that a plan goes by can be given for weights of one's own."""
    profile = read_profile(written(tmp_path, GEMMA))
    [variant] = profile.variants
    assert (profile.parameters, profile.active_parameters) == (4628569379, 2279759139)
    assert profile.quality == 12
    assert profile.benchmarks == {"mmlu_pro": 60.0, "gpqa_diamond": 43.4}
    assert profile.projector is not None
    assert profile.projector.size_bytes == 100
    assert dict(profile.architecture) == {
        "name": "gemma4",
        "block_count": 2,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "rope.freq_base": 1e6,
        "attention.head_count": 8,
        "attention.head_count_kv": (8, 1),
        "attention.sliding_window_pattern": (True, False),
    }
    assert type(profile.architecture["block_count"]) is int
    assert variant.weights is not None
    assert variant.weights.total == 900
    assert variant.requires.vendors == ("nvidia", "amd")
    assert variant.requires.capability == (8, 9)
    assert variant.why == "Made by hand."
    sized = profile_sized(profile, variant, prompt_cache_bytes=0)
    assert sized is not None
    assert sized.weights_bytes == 900


def test_a_profile_is_a_value(tmp_path: Path) -> None:
    """Equal ones are one in a set, and it comes back whole from JSON."""
    profile = read_profile(written(tmp_path, GEMMA))
    again = read_profile(written(tmp_path, GEMMA))
    assert len({profile, again, profile.model_copy(update={"id": "other"})}) == 2
    assert profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize(
    "right, wrong, key",
    [
        ("quality", "qualty", "qualty"),
        ("active_parameters", "active_parms", "active_parms"),
        ("size_bytes = 100\n", "size = 100\n", "projector.size"),
        ("per_layer_embedding", "per_layer_embd", "variants[0].weights.per_layer_embd"),
        ("compute_capability", "capability", "variants[0].requires.capability"),
        (
            '"attention.head_count_kv"',
            '"attention.head_count_vk"',
            'architecture."attention.head_count_vk"',
        ),
    ],
)
def test_an_unknown_key_of_a_table_names_the_nearest(
    tmp_path: Path, right: str, wrong: str, key: str
) -> None:
    """Also where the table is one of figures."""
    error = refused(tmp_path, GEMMA.replace(right, wrong, 1))
    assert error.metadata["key"] == key
    assert error.metadata["nearest"] == right.partition(" ")[0].strip('"')


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("active_parameters = 2_279_759_139", "active_parameters = 5_000_000_000", "more than all"),
        ("quality = 12", "quality = -1", "greater than or equal to 0"),
        ("mmlu_pro = 60", '"MMLU Pro" = 60', "pattern"),
        ('name = "gemma4"\n', "", "name must say which architecture"),
        ("[8, 1]", "[8, 1.5]", "no figure"),
        ("[8, 1]", "[8]", "attention.head_count_kv is (8,)"),
        ('"attention.head_count" = 8', "attention.head_count = 8", '"….head_count"'),
        ('"attention.head_count" = 8', "", "attention.head_count is missing"),
        ("block_count = 2", "block_count = -2", "block_count is -2"),
        ("context_tokens = 131072", "context_tokens = 99_999_999_999", "less than 2147483648"),
        ("size_bytes = 1000", "size_bytes = 99_999_999_999_999_999_999", "less than"),
        ("mmlu_pro = 60", "mmlu_pro = nan", "finite"),
        ("rest = 250", "rest = 2500", "size_bytes says 1000"),
        ('"8.9"', '"8.9.1"', "pattern"),
        ('"amd"', '"voodoo"', "nvidia"),
        ('quantization = "Q4_0"', 'quantization = "Q4_0"\nengine = "diffusion"', "GGUF"),
        ('file_name = "mine.gguf"\n', "", "file_name is required"),
    ],
)
def test_a_figure_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    """With what would be right."""
    assert why in refused(tmp_path, GEMMA.replace(old, new, 1)).why


HUB = """
[[variants.sources]]
kind = "hub"
repository = "a/b"
file = "tiny.gguf"
"""
DIFFUSION = """
id = "tiny"
display_name = "Tiny"
family = "test"

[architecture]
name = "diffusion-gemma"
block_count = 2
embedding_length = 64
feed_forward_length = 128
"attention.head_count" = 8
canvas_length = 256
"parameters.experts" = 100
"parameters.attention" = 10
"parameters.dense" = 10
"parameters.embeddings" = 10
"parameters.vision" = 10
"parameters.other" = 10

[[variants]]
id = "nvfp4"
quantization = "NVFP4"
engine = "diffusion"
size_bytes = 160

[variants.formats]
experts = "nvfp4"

[[variants.sources]]
kind = "quantized"
variant = "bf16"

[[variants]]
id = "bf16"
quantization = "BF16"
engine = "diffusion"
size_bytes = 300

[variants.formats]

[[variants.sources]]
kind = "hub-repository"
repository = "a/b"
files = ["*.safetensors", "config.json"]
"""


def test_weights_of_several_files_are_typed(tmp_path: Path) -> None:
    """They have patterns instead of a name, or the variant that they are made from."""
    profile = read_profile(written(tmp_path, DIFFUSION))
    made, whole = profile.variants
    assert made.several_files
    assert whole.several_files
    assert isinstance(made.sources[0], QuantizedSource)
    assert made.sources[0].origin == "made here from bf16"
    assert isinstance(whole.sources[0], RepositorySource)
    assert whole.sources[0].files == ("*.safetensors", "config.json")
    assert made.formats is not None
    assert (made.formats.experts, made.formats.attention) == ("nvfp4", "bf16")
    sized = profile_sized(profile, whole, prompt_cache_bytes=0)
    assert sized is not None
    assert sized.weights_bytes == 2 * 140


@pytest.mark.parametrize(
    "old, new, why",
    [
        ('variant = "bf16"', 'variant = "nvfp4"', "cannot be made from 'nvfp4'"),
        ('variant = "bf16"', 'variant = "fp8"', "the variants are nvfp4, bf16"),
        ("size_bytes = 160", 'size_bytes = 160\nfile_name = "a.gguf"', "must be empty"),
        ("size_bytes = 300", f'size_bytes = 300\nsha256 = "{SHA}"', "sha256 is of one file"),
        ('experts = "nvfp4"', 'experts = "fp4"', "nvfp4"),
        ('engine = "diffusion"', 'engine = "scripted"', "file_name is required for one file"),
        ('"parameters.other" = 10', "", "parameters.other"),
        ("canvas_length = 256", "canvas_length = 0", "need canvas_length"),
        ("canvas_length = 256", "canvas_length = true", "need canvas_length"),
        ("block_count = 2", "", "block_count is missing"),
        ('"*.safetensors", "config.json"', "", "at least 1"),
        (
            'kind = "quantized"\nvariant = "bf16"',
            'kind = "quantized"\nvariant = "bf16"\n' + HUB,
            "either every source is one file",
        ),
    ],
)
def test_several_files_that_cannot_be_are_refused(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    """With what would be right."""
    assert why in refused(tmp_path, DIFFUSION.replace(old, new, 1)).why


def test_an_unknown_format_key_names_the_nearest(tmp_path: Path) -> None:
    """The groups of weights are few."""
    error = refused(tmp_path, DIFFUSION.replace('experts = "nvfp4"', 'expert = "nvfp4"', 1))
    assert error.metadata["nearest"] == "experts"
