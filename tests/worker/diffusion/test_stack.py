"""The two passes give transformers' logits, whatever the cache and the batch look like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gemd.worker.diffusion import stack as subject
from gemd.worker.diffusion.checkpoint import load_checkpoint
from gemd.worker.diffusion.stack import Stack
from tests.support.tiny_diffusion import TINY, change_json, read_tensors, write_plain

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = 64
"""Small enough that the slack is gone within a test's context."""
CONTEXT = 1024


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a smaller window, and an encoder that differs by its scalars."""
    folder = tmp_path_factory.mktemp("windowed")
    tensors = read_tensors(TINY)
    for index, name in enumerate(sorted(tensors)):
        if name.startswith("model.encoder") and name.endswith("layer_scalar"):
            tensors[name] = tensors[name] * (0.9 + index % 3 / 10)
    write_plain(folder, tensors)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_json(folder / "config.json", {"text_config": {**text, "sliding_window": WINDOW}})
    return folder


@pytest.fixture(name="theirs", scope="module")
def _theirs(folder: Path) -> Any:
    from transformers import DiffusionGemmaForBlockDiffusion  # noqa: PLC0415

    torch.set_num_threads(1)
    return DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(name="ours")
def _ours(folder: Path) -> Stack:
    checkpoint = load_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float32)
    return Stack(checkpoint, slots=3, context_tokens=CONTEXT)


def tokens(count: int, seed: int) -> list[int]:
    """Random ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(20, 500, (count,), generator=generator).tolist()


def logits(stack: Stack, slots: list[int], canvases: list[list[int]]) -> torch.Tensor:
    """Of a first step."""
    with torch.inference_mode():
        hidden = stack.denoise(slots, torch.tensor(canvases), None)
        return torch.tanh(hidden @ stack.embedding.T / stack.softcap) * stack.softcap


def expected(model: Any, prompt: list[int], canvas: list[int]) -> torch.Tensor:
    """Transformers' own, with its own cache and masks."""
    with torch.no_grad():
        found: torch.Tensor = model(
            input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([canvas])
        ).logits
    return found


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Up to what float32 loses on the way."""
    return bool(torch.dist(found, wanted) < 2e-6 * wanted.norm())


@pytest.mark.parametrize(
    "prompt, chunk", [(1, 1), (40, 7), (WINDOW, 64), (300, 128), (700, 512), (700, 33)]
)
def test_a_prompt_in_chunks_is_a_prompt(ours: Stack, theirs: Any, prompt: int, chunk: int) -> None:
    """Shorter and longer than the window, in pieces of any size."""
    given, canvas = tokens(prompt, 1), tokens(32, 2)
    for start in range(0, prompt, chunk):
        ours.encode(0, given[start : start + chunk])
    assert close(logits(ours, [0], [canvas]), expected(theirs, given, canvas))


def test_rows_of_a_batch_have_their_own_pasts(ours: Stack, theirs: Any) -> None:
    """Of different lengths, and in any order of slots."""
    prompts = [tokens(12, 1), tokens(500, 2), tokens(90, 3)]
    canvases = [tokens(32, 10 + index) for index in range(3)]
    for slot, prompt in enumerate(prompts):
        ours.encode(slot, prompt)
    order = [2, 0, 1]
    found = logits(ours, order, [canvases[slot] for slot in order])
    for row, slot in enumerate(order):
        assert close(found[row], expected(theirs, prompts[slot], canvases[slot])[0])


def test_a_turn_goes_on_where_the_last_one_was_cut(ours: Stack, theirs: Any) -> None:
    """Beyond the window too: the slack behind it is enough for the canvas that was not kept."""
    first = tokens(600, 4)
    ours.encode(0, first)
    ours.slots.cut(0, 450)
    prompt = [*first[:450], *tokens(60, 5)]
    ours.encode(0, prompt[450:])
    canvas = tokens(32, 6)
    assert close(logits(ours, [0], [canvas]), expected(theirs, prompt, canvas))


def test_soft_embeddings_condition_a_step(ours: Stack, theirs: Any) -> None:
    """They are the mixture of embeddings by the logits before."""
    given, canvas = tokens(30, 7), tokens(32, 8)
    before = expected(theirs, given, canvas)
    with torch.no_grad():
        wanted = theirs(
            input_ids=torch.tensor([given]),
            decoder_input_ids=torch.tensor([canvas]),
            self_conditioning_logits=before,
        ).logits
    ours.encode(0, given)
    with torch.inference_mode():
        soft = before.softmax(-1) @ ours.embedding * ours.embedding_scale
        hidden = ours.denoise([0], torch.tensor([canvas]), soft)
        found = torch.tanh(hidden @ ours.embedding.T / ours.softcap) * ours.softcap
    assert close(found, wanted)


def test_chunks_get_smaller_as_the_mask_grows(ours: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask has a row for each new token and a column for each that it might see."""
    monkeypatch.setattr(subject, "MASK_ELEMENTS", 20_000)
    assert ours.chunk_limit(0, 512) == 128
    ours.encode(0, tokens(400, 9))
    assert ours.chunk_limit(0, 512) == 32


def test_another_size_of_cache_starts_empty(ours: Stack, theirs: Any) -> None:
    """And computes the same."""
    ours.encode(0, tokens(50, 1))
    ours.resize(256)
    assert ours.slots.length(0) == 0
    given, canvas = tokens(100, 2), tokens(32, 3)
    ours.encode(0, given)
    assert close(logits(ours, [0], [canvas]), expected(theirs, given, canvas))
