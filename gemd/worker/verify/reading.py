"""A GGUF model reads the probe text; what it predicts at each place goes to whoever wants it.

The model is computed on the processor, whatever GPU there is: both are then computed alike, and
nothing that is warm on a GPU has to go.
"""

from __future__ import annotations

import contextlib
from math import prod
from typing import TYPE_CHECKING, Final

from gemd import wire
from gemd.errors import GemdError
from gemd.footprint import Placement, gguf_shape, predict_gguf, read_gguf_model
from gemd.worker.llama import binding
from gemd.worker.llama.batch import Batch
from gemd.worker.llama.params import SCORED_TOKENS
from gemd.worker.memory import give_back
from gemd.worker.prompting.prompt import PromptBuilder
from gemd.worker.prompting.template import ChatTemplate, template_of
from gemd.worker.verify.probe_text import CONVERSATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Take = Callable[[int, int, NDArray[np.float32], int], None]
    """Window, position, logits of shape (vocabulary,), and the token that follows."""

WINDOW_TOKENS: Final = 256
_NO_VOCABULARY: Final = "no_vocab"
_SHORTEST: Final = 16
"""Tokens that are worth a window."""


def unloadable(path: Path, context_tokens: int, free_bytes: int) -> str:
    """Why a model is not to be loaded here; empty if it can be.

    Args:
        path: Its file.
        context_tokens: Of the context.
        free_bytes: What it may take of main memory.

    """
    try:
        header = read_gguf_model(path)
        needed = needed_bytes(path, context_tokens)
    except GemdError as error:
        return f"what it takes in memory is not known: {error}"
    if header.metadata.get("tokenizer.ggml.model", _NO_VOCABULARY) == _NO_VOCABULARY:
        # llama.cpp would end the process over the first question about a token.
        return f"{path.name} has no vocabulary, so that no text can be put to it"
    if needed > free_bytes:
        return f"it takes {needed} bytes of memory, and {free_bytes} are free"
    return ""


def needed_bytes(path: Path, context_tokens: int = WINDOW_TOKENS) -> int:
    """What a model takes of main memory while it reads, at the peak."""
    shape = gguf_shape(read_gguf_model(path))
    return predict_gguf(
        shape, context_tokens=context_tokens, max_sequences=1, placement=Placement()
    ).host_peak


def parameters(path: Path) -> int:
    """Weights of a model, embeddings included."""
    return sum(prod(tensor.shape) for tensor in read_gguf_model(path).tensors)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[binding.Model]:
    """A model in memory, for as long as the block lasts.

    Raises:
        BadModelFileError: llama.cpp refuses it.

    """
    model = binding.Model(
        str(path),
        gpu_layers=0,
        use_mmap=True,
        check_tensors=False,
        progress=lambda _: None,
        log=binding.Log(),
    )
    try:
        yield model
    finally:
        model.close()
        give_back()


def windows(model: binding.Model, chat_template: str | None, most: int) -> list[list[int]]:
    """The probe text in the model's own tokens and template, or plain where it has none.

    Args:
        model: Whose vocabulary it is.
        chat_template: In place of the file's own.
        most: Windows.

    """
    vocabulary = model.vocabulary
    template = template_of(
        model.chat_template,
        chat_template,
        bos=vocabulary.text(vocabulary.bos),
        eos=vocabulary.text(vocabulary.eos),
    )
    builder = PromptBuilder(vocabulary, template)
    try:
        every = [_tokens(builder, turns) for turns in CONVERSATIONS[:most]]
    finally:
        if isinstance(template, ChatTemplate):
            template.close()
    return [tokens[:WINDOW_TOKENS] for tokens in every if len(tokens) >= _SHORTEST]


def _tokens(builder: PromptBuilder, turns: Sequence[str]) -> list[int]:
    limit = 1 << 20
    roles = ("user", "assistant") * len(turns)
    chat = tuple(
        wire.ChatMessage.model_validate({"role": role, "text": text})
        for role, text in zip(roles, turns, strict=False)
    )
    try:
        return builder.build(wire.Prompt(chat=chat), limit=limit)
    except GemdError:
        # No template, or one that takes no such conversation.
        return builder.build(wire.Prompt(text="\n\n".join(turns)), limit=limit)


def read(model: binding.Model, texts: Sequence[Sequence[int]], *, threads: int, take: Take) -> None:
    """Let the model predict every token of these texts but their first.

    Args:
        model: An open one.
        texts: Tokens of each window.
        threads: To compute with.
        take: Gets each prediction; the array is overwritten afterwards.

    """
    context = binding.Context(
        model,
        context_tokens=WINDOW_TOKENS,
        max_sequences=1,
        threads=threads,
        log=binding.Log(),
    )
    batch = Batch(SCORED_TOKENS)
    try:
        for window, tokens in enumerate(texts):
            context.clear()
            for start in range(0, len(tokens), SCORED_TOKENS):
                piece = tokens[start : start + SCORED_TOKENS]
                batch.clear()
                batch.add(0, start, piece, range(len(piece)))
                context.decode(batch)
                for offset, logits in enumerate(context.logits(len(piece))):
                    position = start + offset
                    if position + 1 < len(tokens):
                        take(window, position, logits, tokens[position + 1])
    finally:
        context.close()
