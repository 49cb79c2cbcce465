"""What the result is made of: the published census, and a true list of what was left out."""

from __future__ import annotations

import copy
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from gemd.errors import BadModelFileError
from gemd.footprint.diffusion_config import architecture_of
from gemd.worker.diffusion.checkpoint.census import take_census
from gemd.worker.diffusion.checkpoint.config import read_config
from gemd.worker.diffusion.checkpoint.skeleton import empty_decoder, tree_of
from gemd.worker.quantize.nvfp4.layout import Pack, Plan, Sizes, plan
from gemd.worker.quantize.nvfp4.quantization import described, ignored
from tests.support.diffusion_headers import RELEASED, header_of, published
from tests.support.tiny_diffusion import change_json

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.diffusion_headers import Tensors

FILE: Final = "model.safetensors"


def plan_of(tensors: Tensors, config: dict[str, Any] = RELEASED, *, dense: bool = False) -> Plan:
    """Of a source in one file."""
    sizes = Sizes.of(architecture_of(config))
    return plan({FILE: header_of(tensors)}, sizes, dense=dense)


def outputs_of(planned: Plan) -> Tensors:
    """Type and shape of everything that is written."""
    made = [output for job in planned.jobs for output in job.outputs]
    found = {output.name: (output.dtype, output.shape) for output in made}
    assert len(found) == len(made)
    return found


def small(**changes: int) -> dict[str, Any]:
    """The released configuration with two layers of three experts."""
    config = copy.deepcopy(RELEASED)
    config["text_config"] |= {
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 3,
        "top_k_experts": 2,
        **changes,
    }
    return config


@pytest.fixture(name="source", scope="module")
def _source() -> Tensors:
    """All tensors of the released model in bf16, experts fused."""
    return published(RELEASED, "plain")


def test_with_dense_layers_it_is_the_published_census_without_scales_of_inputs(
    source: Tensors,
) -> None:
    """Names, types and shapes of the checkpoint that has this layout; that one packs inputs too."""
    theirs = published(RELEASED, "compressed-tensors")
    counts = Counter(dtype for dtype, _ in theirs.values())
    assert counts == {"BF16": 897, "F32": 23220, "F8_E4M3": 11610, "U8": 11610}
    weights = {k: v for k, v in theirs.items() if not k.endswith("input_global_scale")}
    ours = outputs_of(plan_of(source, dense=True))
    assert ours == weights
    assert Counter(dtype for dtype, _ in ours.values()) == counts | {"F32": 11610}


def test_with_experts_only_the_dense_layers_stay_as_they_are(source: Tensors) -> None:
    """As the other published checkpoint has it; all else as above."""
    ours = outputs_of(plan_of(source))
    dense = outputs_of(plan_of(source, dense=True))
    apart = ours.keys() ^ dense.keys()
    assert {name.rpartition(".mlp.")[0].rpartition(".")[0] for name in apart} == {
        "model.decoder.layers"
    }
    assert Counter(dtype for dtype, _ in ours.values()) == {
        "BF16": 897 + 90,
        "F32": 11520,
        "F8_E4M3": 11520,
        "U8": 11520,
    }
    size = sum(output.nbytes for job in plan_of(source).jobs for output in job.outputs)
    # By arithmetic: four bits and a sixteenth of eight for experts, sixteen for all else.
    assert size == pytest.approx(18.82e9, rel=2e-3)


@pytest.mark.parametrize("dense", [False, True])
def test_the_engine_finds_nothing_wrong_with_it(
    tmp_path: Path,
    dense: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Its own census of what a checkpoint of this model has to hold, by the written config.json."""
    config = small()
    planned = plan_of(published(config, "plain"), config, dense=dense)
    path = tmp_path / "config.json"
    path.write_text("{}")
    change_json(path, described(config, planned.jobs))
    read = read_config(tmp_path)
    census = take_census(
        [header_of(outputs_of(planned))], tree_of(empty_decoder(read.config)), read.layout
    )
    assert census.problems == ()
    assert len(census.packed) == 2 + 6 * dense


@pytest.mark.parametrize("dense", [False, True])
def test_the_list_of_what_was_left_out_is_true(
    source: Tensors,
    dense: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Every linear layer in bf16 is matched, nothing that is packed, and no entry is idle."""
    jobs = plan_of(source, dense=dense).jobs
    listed = ignored(jobs)
    packed = {path for job in jobs if isinstance(job, Pack) for path in job.paths}
    plain = {
        name.removesuffix(".weight")
        for name, (dtype, shape) in outputs_of(plan_of(source, dense=dense)).items()
        if dtype == "BF16" and len(shape) == 2 and name.endswith(".weight")
    } - {"model.decoder.embed_tokens"}

    def matched(entry: str, path: str) -> bool:
        pattern = entry.removeprefix("re:")
        return bool(re.match(pattern, path)) if pattern != entry else entry == path

    assert not any(matched(entry, path) for entry in listed for path in packed)
    assert all(any(matched(entry, path) for entry in listed) for path in plain)
    # The head is a layer without a tensor.
    idle = [entry for entry in listed if not any(matched(entry, path) for path in plain)]
    assert idle == ["lm_head"]
    # By the names that vLLM gives them, too.
    theirs = {path.replace("model.decoder.", "model.") for path in packed}
    assert not any(matched(entry, path) for entry in listed for path in theirs)


def test_layers_that_no_pattern_covers_are_listed_by_name() -> None:
    """So the list stays true of a checkpoint with something new in it."""
    config = small()
    tensors = published(config, "plain") | {"model.decoder.new.proj.weight": ("BF16", (8, 8))}
    assert "model.decoder.new.proj" in ignored(plan_of(tensors, config).jobs)


def test_experts_that_are_stored_one_by_one_become_the_same() -> None:
    """Gate and up wait for each other, in whatever order they are."""
    config = small()
    fused = published(config, "plain")
    single = {name: each for name, each in fused.items() if ".experts." not in name}
    for layer in range(2):
        for expert in range(3):
            path = f"model.decoder.layers.{layer}.experts.{expert}"
            single[f"{path}.up_proj.weight"] = ("BF16", (704, 2816))
            single[f"{path}.down_proj.weight"] = ("BF16", (2816, 704))
            single[f"{path}.gate_proj.weight"] = ("BF16", (704, 2816))
    one, other = plan_of(fused, config), plan_of(single, config)
    assert outputs_of(one) == outputs_of(other)
    assert {job.paths for job in one.jobs if isinstance(job, Pack)} == {
        job.paths for job in other.jobs if isinstance(job, Pack)
    }


def test_parts_of_fused_experts_cover_the_tensor_once() -> None:
    """Gate, up and the next expert's gate lie behind each other."""
    config = small()
    tensors = published(config, "plain")
    header = header_of(tensors)
    name = "model.decoder.layers.1.experts.gate_up_proj"
    [whole] = [tensor for tensor in header.tensors if tensor.name == name]
    parts = [part for job in plan_of(tensors, config).jobs for part in job.parts]
    at = header.data_offset + whole.begin
    for part in (each for each in parts if each.tensor == name):
        assert (part.offset, part.shape) == (at, (704, 2816))
        at += part.nbytes
    assert at == header.data_offset + whole.begin + whole.nbytes


def test_dense_layers_of_an_odd_width_stay_in_bf16_and_are_counted() -> None:
    """Rows that do not divide into blocks: down of the dense layers, and no other."""
    config = small(intermediate_size=2120)
    planned = plan_of(published(config, "plain"), config, dense=True)
    assert planned.fallbacks == tuple(f"model.decoder.layers.{n}.mlp.down_proj" for n in range(2))
    assert set(planned.fallbacks) <= set(ignored(planned.jobs))


@pytest.mark.parametrize(
    "name, entry, said",
    [
        ("model.decoder.layers.1.experts.down_proj", None, "6 of 9"),
        ("model.decoder.layers.1.experts.gate_up_proj", ("BF16", (3, 1400, 2816)), "1400"),
        ("model.decoder.layers.1.experts.gate_up_proj", ("U8", (3, 1408, 2816)), "U8"),
        ("model.decoder.layers.7.experts.down_proj", ("BF16", (3, 2816, 704)), "3 layers"),
    ],
)
def test_experts_that_are_not_as_described_are_refused(
    name: str, entry: tuple[str, tuple[int, ...]] | None, said: str
) -> None:
    """With the tensor's name: missing, misshapen, of another type, of a layer too many."""
    config = small()
    tensors = published(config, "plain")
    tensors.pop(name, None)
    if entry is not None:
        tensors[name] = entry
    with pytest.raises(BadModelFileError) as caught:
        plan_of(tensors, config)
    assert name.rpartition(".experts")[0].startswith(
        caught.value.metadata["tensor"].rpartition(".experts")[0]
    )
    assert said in str(caught.value)


def test_half_of_a_pair_is_refused() -> None:
    """Gate without up cannot have its scale."""
    config = small()
    tensors = published(config, "plain")
    del tensors["model.decoder.layers.0.mlp.up_proj.weight"]
    with pytest.raises(BadModelFileError, match=r"mlp\.up_proj\.weight cannot be quantized"):
        plan_of(tensors, config, dense=True)


def test_config_names_bf16_and_keeps_all_else() -> None:
    """Wherever it names a type; nothing about activations."""
    config = {"dtype": "float32", "x": 1, "text_config": {"torch_dtype": "float32", "y": 2}}
    text = described(config, [])
    quantization = text.pop("quantization_config")
    assert text == {
        "dtype": "bfloat16",
        "x": 1,
        "text_config": {"torch_dtype": "bfloat16", "y": 2},
    }
    assert quantization["format"] == "nvfp4-pack-quantized"
    assert quantization["config_groups"]["group_0"]["input_activations"] is None
