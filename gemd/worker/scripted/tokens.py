"""Words as tokens, and hashes as a model's answers."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from typing import TYPE_CHECKING

from gemd import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY = 65536
_DIMENSIONS = 16


def text_of(prompt: wire.Prompt) -> str:
    """The text of a prompt, of its last message in a chat."""
    if prompt.chat is not None:
        return prompt.chat[-1].text
    if prompt.text is not None:
        return prompt.text
    return "".join(f" t{token}" for token in prompt.tokens or ())


def words(text: str) -> list[str]:
    """Every word with the space before it; joined again they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def token_id(word: str) -> int:
    """A stable number for a word."""
    return zlib.crc32(word.encode()) % VOCABULARY


def token_ids(prompt: wire.Prompt) -> list[int]:
    """The tokens of a whole prompt."""
    if prompt.tokens is not None:
        return list(prompt.tokens)
    texts = [prompt.text or ""] if prompt.chat is None else [turn.text for turn in prompt.chat]
    return [token_id(word) for text in texts for word in words(text)]


def counted(message: wire.Count) -> wire.Counted:
    """The words of a prompt."""
    ids = token_ids(message.prompt)
    return wire.Counted(
        request_id=message.request_id,
        count=len(ids),
        tokens=tuple(ids) if message.include_tokens else (),
    )


def scores(message: wire.Score) -> wire.Scores:
    """Hashes of the continuations in the form of an answer."""
    continuations = []
    for continuation in message.continuations:
        tokens = (
            [token_id(word) for word in words(continuation)]
            if isinstance(continuation, str)
            else list(continuation)
        )
        continuations.append(
            wire.Continuation(
                tokens=tuple(
                    wire.TokenLogprob(
                        token=token,
                        piece=str(token).encode(),
                        logprob=-(token % 1000) / 100,
                        rank=token % 7,
                        entropy=(token % 100) / 50,
                    )
                    for token in tokens
                )
            )
        )
    return wire.Scores(
        request_id=message.request_id,
        prompt_tokens=len(token_ids(message.prompt)),
        cached_tokens=0,
        continuations=tuple(continuations),
    )


def embeddings(message: wire.Embed) -> wire.Embeddings:
    """Hashes of the texts in the form of an answer."""
    return wire.Embeddings(
        request_id=message.request_id,
        vectors=tuple(tuple(_vector(text, normalize=message.normalize)) for text in message.texts),
        tokens=tuple(len(words(text)) for text in message.texts),
    )


def _vector(text: str, *, normalize: bool) -> Iterator[float]:
    values = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]]
    length = math.hypot(*values) if normalize else 1.0
    return (value / length for value in values)
