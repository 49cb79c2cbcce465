"""Tokenizers of the form that the published checkpoints have, small enough to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from gemd.worker.diffusion.tokenizer_files import read_tokenizer_files
from gemd.worker.diffusion.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONTROL: Final = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    *("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"),
)
USER_DEFINED: Final = ("\n\n", "\n\n\n", "<table>", "<start_of_turn>", "é")
"""Read in any text; one looks like markup, one is a letter."""
_WORDS: Final = (" the", " Paris", " is", "capital", "turn", "thought", "  ", "    ", "\t\t")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzAP0123456789.,!<|>/_-'\n\t▁äß"


def gemma_vocab() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens in Gemma's form, and merges: bytes, letters, and words built letter by letter."""
    merges: list[tuple[str, str]] = []
    texts = [*CONTROL, *USER_DEFINED, *(f"<0x{byte:02X}>" for byte in range(256)), *_LETTERS]
    for word in _WORDS:
        letters = word.replace(" ", "▁")
        for end in range(1, len(letters)):
            pair = (letters[:end], letters[end])
            if pair not in merges:
                merges.append(pair)
                texts.append("".join(pair))
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}, merges


def gemma_tokenizer() -> Tokenizer:
    """As `GemmaTokenizer` of transformers sets it up: ``▁`` for spaces, bytes for the unknown."""
    vocab, merges = gemma_vocab()
    tokenizer = Tokenizer(BPE(vocab, merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in USER_DEFINED])
    return tokenizer


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer, settings: dict[str, Any] | None = None
) -> None:
    """Write tokenizer.json, and tokenizer_config.json if there are settings."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def vocabulary_of(folder: Path, *, ends: Iterable[int] = (1,), size: int = 512) -> Vocabulary:
    """The vocabulary of a checkpoint."""
    return Vocabulary(read_tokenizer_files(folder), size=size, end_of_generation=ends)
