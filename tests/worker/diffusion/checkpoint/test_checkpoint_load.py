"""What is loaded is what was stored: every layout, bit for bit, once, and nothing else."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import DiffusionGemmaForBlockDiffusion

from gemd.errors import BadModelFileError
from gemd.footprint import read_safetensors_header
from gemd.worker.diffusion.checkpoint import files, load_checkpoint
from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear
from tests.support.nvfp4 import dequantize_nvfp4, global_scale_of, quantize_nvfp4
from tests.support.tiny_diffusion import (
    TINY,
    Layout,
    Tensors,
    read_tensors,
    write_nvfp4,
    write_plain,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.worker.diffusion.checkpoint import Checkpoint

CPU = torch.device("cpu")
LAYOUTS: tuple[Layout, ...] = ("modelopt", "compressed-tensors")
EXPERTS, HIDDEN, INNER = 8, 128, 64


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two threads on a busy machine of two cores are far slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def stored() -> Tensors:
    """All tensors of the fixture, in bf16."""
    return read_tensors(TINY)


def load(path: Path, **options: Any) -> Checkpoint:
    """On the CPU."""
    return load_checkpoint(path, device=CPU, **options)


def text_of(stored: Tensors) -> Tensors:
    """What the decoder has of a checkpoint's tensors, by the decoder's names."""
    return {
        name.removeprefix("model.decoder."): tensor
        for name, tensor in stored.items()
        if name.startswith("model.decoder.")
    }


def storages(checkpoint: Checkpoint) -> int:
    """Bytes of all memory that a checkpoint holds, each counted once."""
    tensors = [
        *checkpoint.decoder.parameters(),
        *checkpoint.decoder.buffers(),
        *checkpoint.encoder_scalars,
    ]
    memory = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    return sum(int(tensor.untyped_storage().nbytes()) for tensor in memory.values())


def never_stored(checkpoint: Checkpoint) -> int:
    """Bytes of what is computed: frequencies, and the embedding's factor."""
    rotary, embedding = checkpoint.decoder.rotary_emb, checkpoint.decoder.embed_tokens
    computed = (*rotary.buffers(), embedding.embed_scale)
    return sum(buffer.nbytes for buffer in computed)


def hidden_states(decoder: Any, model: Any) -> torch.Tensor:
    """What a decoder makes of a canvas behind a prompt that a whole model has encoded."""
    generator = torch.Generator().manual_seed(3)
    prompt = torch.randint(11, 512, (1, 20), generator=generator)
    canvas = torch.randint(11, 512, (1, 32), generator=generator)
    logits = torch.randn((1, 32, 512), generator=generator)
    with torch.no_grad():
        encoded = model.model.encoder(input_ids=prompt)
        names = inspect.signature(inspect.unwrap(type(decoder).forward)).parameters
        name = "cache" if "cache" in names else "past_key_values"
        cache = getattr(encoded, name, None) or encoded.past_key_values
        out = decoder(decoder_input_ids=canvas, self_conditioning_logits=logits, **{name: cache})
    states: torch.Tensor = out.last_hidden_state
    return states


@pytest.fixture(scope="module")
def reference() -> Any:
    """The fixture as transformers loads it."""
    torch.set_num_threads(1)
    return DiffusionGemmaForBlockDiffusion.from_pretrained(TINY, dtype=torch.bfloat16).eval()


def test_a_plain_checkpoint_is_loaded_bit_for_bit(stored: Tensors) -> None:
    """Every parameter, and the numbers that transformers does not save."""
    found = load(TINY)
    state = found.decoder.state_dict()
    assert state.keys() == text_of(stored).keys()
    for name, tensor in text_of(stored).items():
        assert torch.equal(state[name], tensor), name
    assert (found.layout, found.decoder.dtype) == ("plain", torch.bfloat16)
    assert not found.decoder.training
    assert not any(parameter.requires_grad for parameter in found.decoder.parameters())


def test_the_loaded_decoder_computes_what_transformers_computes(reference: Any) -> None:
    """The same bits, for the same canvas behind the same prompt."""
    found = load(TINY)
    own = dict(reference.model.decoder.named_buffers())
    assert own.keys() == {name for name, _ in found.decoder.named_buffers()}
    for name, buffer in found.decoder.named_buffers():
        # The factor of the embedding is used in the type of its table, and kept in float32 here.
        kind = own[name].dtype
        assert torch.equal(buffer.to(kind), own[name]), name
    expected = hidden_states(reference.model.decoder, reference)
    assert torch.equal(hidden_states(found.decoder, reference), expected)


def test_parameters_are_those_of_the_text_model(reference: Any, tmp_path: Path) -> None:
    """Of the decoder, whether its weights are packed or not."""
    own = sum(parameter.numel() for parameter in reference.model.decoder.parameters())
    write_nvfp4(TINY, tmp_path, "modelopt", dense=True)
    assert load(TINY).parameters == load(tmp_path).parameters == own


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shared_scale", [True, False])
def test_packed_experts_are_loaded_bit_for_bit(
    stored: Tensors, tmp_path: Path, layout: Layout, *, shared_scale: bool
) -> None:
    """Out of several files; each expert's codes, scales and global scales in their place."""
    write_nvfp4(TINY, tmp_path, layout, shared_scale=shared_scale)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = load(tmp_path)
    assert found.layout == layout
    for number, layer in enumerate(found.decoder.layers):
        experts = layer.experts
        assert isinstance(experts, PackedExperts)
        path = f"model.decoder.layers.{number}.experts"
        fused = stored[f"{path}.gate_up_proj"], stored[f"{path}.down_proj"]
        for expert, (gate_up, down) in enumerate(zip(*fused, strict=True)):
            gate, up = gate_up.chunk(2)
            scale = global_scale_of(gate, up) if shared_scale else None
            parts = [quantize_nvfp4(gate, scale), quantize_nvfp4(up, scale)]
            codes, scales = (torch.cat([part[n] for part in parts]) for n in (0, 1))
            factors = torch.stack([part[2] for part in parts])
            assert torch.equal(experts.gate_up_packed[expert], codes)
            assert torch.equal(experts.gate_up_scale[expert].float(), scales.float())
            same_factors(experts.gate_up_global[expert], factors, layout)
            codes, scales, factor = quantize_nvfp4(down)
            assert torch.equal(experts.down_packed[expert], codes)
            assert torch.equal(experts.down_scale[expert].float(), scales.float())
            same_factors(experts.down_global[expert], factor.reshape(1), layout)
    assert experts.gate_up_packed.shape == (EXPERTS, 2 * INNER, HIDDEN // 2)
    assert experts.down_scale.shape == (EXPERTS, HIDDEN, INNER // 16)


def same_factors(found: torch.Tensor, written: torch.Tensor, layout: Layout) -> None:
    """Whether they are; of what compressed-tensors stores, it is the reciprocal's reciprocal."""
    assert torch.equal(found, written if layout == "modelopt" else 1 / (1 / written))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_dense_mlp_is_loaded_bit_for_bit(
    stored: Tensors, tmp_path: Path, layout: Layout
) -> None:
    """As llm-compressor's checkpoint has it; attention stays as it is."""
    write_nvfp4(TINY, tmp_path, layout, dense=True)
    found = load(tmp_path)
    for number, layer in enumerate(found.decoder.layers):
        for name in ("gate_proj", "up_proj", "down_proj"):
            linear = getattr(layer.mlp, name)
            assert isinstance(linear, PackedLinear)
            matrix = stored[f"model.decoder.layers.{number}.mlp.{name}.weight"]
            codes, scales, factor = quantize_nvfp4(matrix)
            assert torch.equal(linear.weight_packed, codes)
            assert torch.equal(linear.weight_scale.float(), scales.float())
            same_factors(linear.global_scale, factor.reshape(1), layout)
        own = stored[f"model.decoder.layers.{number}.self_attn.q_proj.weight"]
        assert torch.equal(layer.self_attn.q_proj.weight, own)


def dequantized(stored: Tensors) -> Tensors:
    """The plain weights that a packed checkpoint stands for, by hand, and all its other tensors."""
    plain: Tensors = {}
    for name, tensor in stored.items():
        if ".experts." in name or ".mlp." in name:
            plain[name] = through_nvfp4(tensor)
        else:
            plain[name] = tensor
    return plain


def through_nvfp4(matrix: torch.Tensor) -> torch.Tensor:
    """Packed and unpacked, each expert by itself."""
    if matrix.dim() > 2:
        return torch.stack([through_nvfp4(expert) for expert in matrix])
    return dequantize_nvfp4(*quantize_nvfp4(matrix)).to(torch.bfloat16)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_weights_compute_what_they_stand_for(
    stored: Tensors, reference: Any, tmp_path: Path, layout: Layout
) -> None:
    """The same as a plain checkpoint with the dequantized numbers, up to bf16's rounding."""
    write_nvfp4(TINY, tmp_path / "packed", layout, dense=True)
    write_plain(tmp_path / "plain", dequantized(stored))
    ours, own = (
        hidden_states(load(tmp_path / name).decoder, reference) for name in ("packed", "plain")
    )
    error = (ours.float() - own.float()).norm() / own.float().norm()
    assert error < 0.02


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_is_that_of_the_packed_bytes(tmp_path: Path, layout: Layout) -> None:
    """No bf16 copy, no encoder beside the decoder, no vision tower."""
    write_nvfp4(TINY, tmp_path, layout, dense=True)
    found = load(tmp_path)
    needed = sum(
        tensor.nbytes
        for path in tmp_path.glob("*.safetensors")
        for tensor in read_safetensors_header(path).tensors
        if "vision" not in tensor.name
        and not tensor.name.endswith(("input_scale", "input_global_scale"))
    )
    assert storages(found) == needed + never_stored(found)
    assert needed < 0.5 * sum(tensor.nbytes for tensor in read_tensors(TINY).values())
    assert not any("vision" in name for name, _ in found.decoder.named_modules())


def test_the_scalars_of_encoder_and_decoder_are_kept_apart(stored: Tensors, tmp_path: Path) -> None:
    """They are the only numbers in which the two differ."""
    changed = dict(stored)
    for layer in range(4):
        for number, stack in enumerate(("decoder", "encoder.language_model")):
            name = f"model.{stack}.layers.{layer}.layer_scalar"
            changed[name] = torch.tensor([layer + number / 2 + 1.0], dtype=torch.bfloat16)
    write_plain(tmp_path, changed)
    found = load(tmp_path)
    assert [scalar.item() for scalar in found.encoder_scalars] == [1.5, 2.5, 3.5, 4.5]
    assert [layer.layer_scalar.item() for layer in found.decoder.layers] == [1, 2, 3, 4]
    assert all(scalar.shape == (1,) for scalar in found.encoder_scalars)


def test_experts_may_be_stored_one_by_one_unpacked(stored: Tensors, tmp_path: Path) -> None:
    """As some exporters write bf16, too; gate comes before up."""
    changed = dict(stored)
    for layer in range(4):
        path = f"model.decoder.layers.{layer}.experts"
        fused, down = changed.pop(f"{path}.gate_up_proj"), changed.pop(f"{path}.down_proj")
        for expert in range(EXPERTS):
            gate, up = fused[expert].chunk(2)
            for name, tensor in (("gate", gate), ("up", up), ("down", down[expert])):
                changed[f"{path}.{expert}.{name}_proj.weight"] = tensor.contiguous()
    write_plain(tmp_path, changed)
    state = load(tmp_path).decoder.state_dict()
    for name, tensor in text_of(stored).items():
        assert torch.equal(state[name], tensor), name


def test_what_is_stored_in_another_type_is_converted(
    stored: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever pieces it is read; the checkpoint's own type is the default."""
    monkeypatch.setattr(files, "CHUNK_BYTES", 1000)
    wide = {name: tensor.float() * 1.001 for name, tensor in stored.items()}
    write_plain(tmp_path, wide, dtype="float32")
    for dtype in (None, torch.bfloat16, torch.float16):
        state = load(tmp_path, dtype=dtype).decoder.state_dict()
        for name, tensor in text_of(wide).items():
            assert torch.equal(state[name], tensor.to(dtype or torch.float32)), name


def test_packed_weights_are_read_in_pieces_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main memory never holds more of them than one piece."""
    write_nvfp4(TINY, tmp_path, "modelopt")
    whole = load(tmp_path).decoder.state_dict()
    monkeypatch.setattr(files, "CHUNK_BYTES", 256)
    for name, tensor in load(tmp_path).decoder.state_dict().items():
        assert torch.equal(tensor.view(torch.uint8), whole[name].view(torch.uint8)), name


def test_progress_counts_the_bytes_that_are_needed() -> None:
    """From none to all, in between in steps that are worth a message."""
    seen: list[tuple[int, int]] = []
    load(TINY, progress=lambda done, total: seen.append((done, total)))
    needed = sum(
        tensor.nbytes
        for tensor in read_safetensors_header(TINY / "model.safetensors").tensors
        if "vision" not in tensor.name
    )
    assert seen[0] == (0, needed)
    assert seen[-1] == (needed, needed)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert 4 < len(seen) < 220


def test_a_file_that_shrinks_is_noticed_while_it_is_read(tmp_path: Path) -> None:
    """With the place; a mapping would end the process here."""
    path = tmp_path / "model.safetensors"
    path.write_bytes((TINY / "model.safetensors").read_bytes())
    header = read_safetensors_header(path)
    last = header.tensors[-1]
    staging = files.staging_memory(CPU, header.file_size)
    with files.Weights(path, header, staging) as weights:
        whole = b"".join(bytes(piece.numpy()) for piece in weights.pieces(last.begin, last.nbytes))
        assert whole == path.read_bytes()[header.data_offset + last.begin :]
        with path.open("r+b") as file:
            file.truncate(header.file_size - 1)
        with pytest.raises(BadModelFileError, match="cannot be read") as caught:
            list(weights.pieces(last.begin, last.nbytes))
    assert caught.value.metadata["offset"] == str(header.file_size - 1)
