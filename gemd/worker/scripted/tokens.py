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

    from gemd.worker.scripted.script import Scored

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


def pieces_of(given: str | tuple[int, ...]) -> list[tuple[int, bytes]]:
    """The tokens of a text with their bytes; of ids with their digits."""
    if isinstance(given, str):
        return [(token_id(word), word.encode()) for word in words(given)]
    return [(token, str(token).encode()) for token in given]


def scores(message: wire.Score, scored: Scored | None) -> wire.Scores:
    """As the script says, or hashes of the continuations in the form of an answer."""
    continuations = [pieces_of(each) for each in message.continuations]
    return wire.Scores(
        request_id=message.request_id,
        prompt_tokens=len(token_ids(message.prompt)),
        cached_tokens=0,
        continuations=tuple(
            wire.Continuation(
                tokens=_hashed(pieces) if scored is None else _scripted(scored, index, pieces)
            )
            for index, pieces in enumerate(continuations)
        ),
    )


def _hashed(pieces: list[tuple[int, bytes]]) -> tuple[wire.TokenLogprob, ...]:
    return tuple(
        wire.TokenLogprob(
            token=token,
            piece=piece,
            logprob=-(token % 1000) / 100,
            rank=token % 7,
            entropy=(token % 100) / 50,
        )
        for token, piece in pieces
    )


def _scripted(
    scored: Scored, index: int, pieces: list[tuple[int, bytes]]
) -> tuple[wire.TokenLogprob, ...]:
    figures = scored.logprobs[min(index, len(scored.logprobs) - 1)]
    logprobs = [figures[min(place, len(figures) - 1)] for place in range(len(pieces))]
    return tuple(
        wire.TokenLogprob(
            token=token,
            piece=piece,
            logprob=logprob,
            # Only the likeliest of all can have half of the probability.
            rank=0 if logprob > -math.log(2) else 1,
            entropy=scored.entropy,
        )
        for (token, piece), logprob in zip(pieces, logprobs, strict=True)
    )


def embeddings(message: wire.Embed, *, made_for: wire.Pooling) -> wire.Embeddings:
    """Hashes of the texts, or of their last words, in the form of an answer.

    Args:
        message: The request.
        made_for: The pooling of a request that names none.

    """
    last = (message.pooling or made_for) == "last"
    hashed = ["".join(words(text)[-1:]) if last else text for text in message.texts]
    return wire.Embeddings(
        request_id=message.request_id,
        vectors=tuple(tuple(_vector(text, normalize=message.normalize)) for text in hashed),
        tokens=tuple(len(words(text)) for text in message.texts),
    )


def _vector(text: str, *, normalize: bool) -> Iterator[float]:
    values = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]]
    length = math.hypot(*values) if normalize else 1.0
    return (value / length for value in values)
