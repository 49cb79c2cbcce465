"""Trains the tiny diffusion models of the tests, on one CPU thread.

``python -m tests.support.diffusion_training --out DIR --seconds 300`` makes one that gives all
answers of `tests.support.tiny_diffusion` exactly; 90 seconds make one that mostly runs into the cap
on steps.

The loss is that of TRL's example for this architecture: cross-entropy over the whole canvas, whose
tokens have been replaced by random ones with a random probability, plus that of the encoder's next
token. Each canvas is run twice, the second time half of the rows with the first run's logits, as
the denoising loop hands them on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator  # noqa: TC003 - a dataclass's field
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSamplerConfig,
)
from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

from tests.support.tiny_diffusion import ANSWERS

PAD: Final = 0
EOS: Final = 1
BOS: Final = 2
_SPECIAL: Final = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<|image>",
    "<image|>",
    "<|image|>",
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|think|>",
)
_TEMPLATE: Final = (
    "{{ bos_token }}{% for m in messages %}"
    "<|turn>{{ 'model' if m['role']=='assistant' else m['role'] }}\n"
    "{{ m['content'] if m['content'] is string else m['content'][0]['text'] }}<turn|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)
_VOCABULARY: Final = 512
_CANVAS: Final = 32
_HIDDEN: Final = 128
_LAYERS: Final = 4
# Longer than any example: a window that ends inside the padding would hide the prompt.
_WINDOW: Final = 256
_BATCH: Final = 16
_RATE: Final = 3e-3
_WARM_UP: Final = 50
"""Steps in which the learning rate rises."""
_PURE_NOISE: Final = 0.25
"""Of the rows, those that start from nothing, as every canvas does."""
_ENCODER_WEIGHT: Final = 0.3


@dataclass(frozen=True)
class Examples:
    """All questions with their answers, padded; every tensor has a row for each.

    Attributes:
        tokens: Prompt and answer.
        mask: 1 where `tokens` is no padding.
        prompts: Lengths.
        answers: Lengths, the end of the turn included.

    """

    tokens: torch.Tensor
    mask: torch.Tensor
    prompts: torch.Tensor
    answers: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """What one step is made of; see `Examples`.

    Attributes:
        inputs: Of the model's forward.
        targets: What each canvas should become.

    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of the questions and answers, with Gemma's way to mark turns."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for pair in ANSWERS.items() for text in pair]
    bare.train_from_iterator([*texts, "user\nmodel\n", "user", "model", "thought\n"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token=_SPECIAL[PAD],
        eos_token=_SPECIAL[EOS],
        bos_token=_SPECIAL[BOS],
        additional_special_tokens=list(_SPECIAL[3:]),
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> DiffusionGemmaForBlockDiffusion:
    """1.6 million parameters: three layers with a window, one without, eight experts in each."""
    last = "full_attention"
    text = DiffusionGemmaTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=_HIDDEN // 4,
        global_head_dim=_HIDDEN // 2,
        num_global_key_value_heads=1,
        layer_types=["sliding_attention"] * (_LAYERS - 1) + [last],
        sliding_window=_WINDOW,
        max_position_embeddings=4096,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=64,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        use_bidirectional_attention="vision",
    )
    config = DiffusionGemmaConfig(
        text_config=text,
        vision_config=smallest_vision(),
        canvas_length=_CANVAS,
        boi_token_id=tokenizer.convert_tokens_to_ids("<|image>"),
        eoi_token_id=tokenizer.convert_tokens_to_ids("<image|>"),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    model = DiffusionGemmaForBlockDiffusion(config)
    model.set_experts_implementation("eager")
    generation = model.generation_config
    generation.max_new_tokens = _CANVAS
    generation.max_denoising_steps = 48
    generation.sampler_config = EntropyBoundSamplerConfig(entropy_bound=0.1)
    generation.t_min, generation.t_max = 0.4, 0.8
    generation.stability_threshold, generation.confidence_threshold = 1, 0.005
    generation.eos_token_id = [EOS, tokenizer.convert_tokens_to_ids("<turn|>")]
    generation.pad_token_id, generation.bos_token_id = PAD, BOS
    return model


def smallest_vision() -> Gemma4VisionConfig:
    """The vision tower of a model for tests: the class has no model without one."""
    return Gemma4VisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        global_head_dim=16,
        patch_size=16,
        position_embedding_size=64,
    )


def prompt_of(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """The tokens that a question is asked with."""
    chat = [{"role": "user", "content": question}]
    encoded = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    tokens: list[int] = encoded["input_ids"]
    return tokens


def make_examples(tokenizer: PreTrainedTokenizerFast) -> Examples:
    """All questions with their answers."""
    end = tokenizer.convert_tokens_to_ids("<turn|>")
    pairs = [
        (
            prompt_of(tokenizer, question),
            [*tokenizer(answer, add_special_tokens=False)["input_ids"], end],
        )
        for question, answer in ANSWERS.items()
    ]
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    assert longest < _WINDOW
    tokens = torch.full((len(pairs), longest), PAD)
    mask = torch.zeros_like(tokens)
    for row, (prompt, answer) in enumerate(pairs):
        both = torch.tensor(prompt + answer)
        tokens[row, : len(both)] = both
        mask[row, : len(both)] = 1
    lengths = torch.tensor([[len(prompt), len(answer)] for prompt, answer in pairs])
    return Examples(tokens, mask, lengths[:, 0], lengths[:, 1])


def draw(examples: Examples, vocabulary: int) -> Batch:
    """A canvas of each of some answers, part of its tokens replaced by random ones."""
    canvases = (examples.answers - 1) // _CANVAS + 1
    # Long answers have more canvases, and each is to be seen as often.
    rows = torch.multinomial(canvases.float(), _BATCH, replacement=True)
    length = int((examples.prompts + examples.answers)[rows].max())
    tokens, mask = examples.tokens[rows, :length], examples.mask[rows, :length]
    canvas = (torch.rand(_BATCH) * canvases[rows]).long()
    starts = examples.prompts[rows] + canvas * _CANVAS
    offsets = torch.arange(_CANVAS)
    places = starts[:, None] + offsets
    inside = offsets < (examples.answers[rows] - canvas * _CANVAS)[:, None]
    targets = torch.where(inside, tokens.gather(1, places.clamp(max=length - 1)), EOS)
    noise = torch.rand(_BATCH, 1)
    noise[torch.rand(_BATCH, 1) < _PURE_NOISE] = 1.0
    replaced = torch.rand(_BATCH, _CANVAS) < noise
    known = (torch.arange(length) < starts[:, None]).long()
    inputs = {
        "input_ids": tokens,
        "attention_mask": mask,
        "decoder_input_ids": torch.where(
            replaced, torch.randint(vocabulary, (_BATCH, _CANVAS)), targets
        ),
        "decoder_attention_mask": torch.cat([known, torch.ones_like(targets)], dim=1),
        "decoder_position_ids": places,
    }
    return Batch(inputs, targets)


def loss_of(model: DiffusionGemmaForBlockDiffusion, batch: Batch) -> torch.Tensor:
    """Of the canvas and of the encoder; see the module."""
    with torch.no_grad():
        before = model(**batch.inputs).logits
    out = model(
        **batch.inputs,
        self_conditioning_logits=before,
        self_conditioning_mask=torch.rand(_BATCH) < 0.5,
    )
    canvas = functional.cross_entropy(out.logits.flatten(0, 1), batch.targets.flatten())
    cap = model.config.text_config.final_logit_softcapping
    logits = model.lm_head(out.encoder_last_hidden_state).float()
    logits = torch.tanh(logits / cap) * cap
    tokens, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    following = torch.where(mask[:, :-1] & mask[:, 1:], tokens[:, 1:], -100)
    encoder = functional.cross_entropy(logits[:, :-1].flatten(0, 1), following.flatten())
    return canvas + _ENCODER_WEIGHT * encoder


def rate(step: int, part: float) -> float:
    """The learning rate of a step, by the part of the time that is over."""
    falling = 1.0 if part < 0.6 else max(0.05, (1 - part) / 0.4)
    return _RATE * min(1.0, step / _WARM_UP) * falling


def train(
    model: DiffusionGemmaForBlockDiffusion, examples: Examples, seconds: float
) -> Iterator[tuple[int, float]]:
    """Trains for some time; gives the number and the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    began, step = time.monotonic(), 0
    while (part := (time.monotonic() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, part)
        loss = loss_of(model, draw(examples, model.config.text_config.vocab_size))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        yield step, loss.item()
    model.eval()


def answer(model: Any, tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """What transformers' own loop makes of a question."""
    prompt = prompt_of(tokenizer, question)
    torch.manual_seed(1)
    out = model.generate(torch.tensor([prompt]), max_new_tokens=128)
    text: str = tokenizer.decode(out.sequences[0][len(prompt) :], skip_special_tokens=True)
    return text


def main() -> None:
    """Trains, writes the checkpoint in bf16, and says how many answers it knows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to train")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    for step, loss in train(model, make_examples(tokenizer), chosen.seconds):
        if step % 50 == 0:
            sys.stdout.write(f"step {step}: loss {loss:.4f}\n")
            sys.stdout.flush()
    model = model.to(torch.bfloat16)
    model.save_pretrained(chosen.out)
    tokenizer.save_pretrained(chosen.out)
    right = sum(answer(model, tokenizer, question) == text for question, text in ANSWERS.items())
    sys.stdout.write(f"{right} of {len(ANSWERS)} answers are exact\n")


if __name__ == "__main__":
    main()
