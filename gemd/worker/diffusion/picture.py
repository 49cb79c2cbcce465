"""A denoising step as a client sees it: the text as it stands, and how sure the model is of it."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Protocol

from gemd import wire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gemd.worker.diffusion.sampler import Canvas


class Pieces(Protocol):
    """Bytes of tokens."""

    def piece(self, token: int) -> bytes:
        """Of one token; empty for a control token."""
        ...


def picture(
    canvas: Canvas,
    confidence: NDArray[np.float32],
    pieces: Pieces,
    *,
    request_id: str,
    candidate: int,
    number: int,
) -> wire.Canvas:
    """The step that a canvas has just taken.

    Args:
        canvas: After the step.
        confidence: By position, of the token that is likeliest there.
        pieces: Of the vocabulary.
        request_id: Of the request.
        candidate: Of it.
        number: Of the canvas within the answer, from 0.

    """
    text, offsets = _text([pieces.piece(int(token)) for token in canvas.likeliest])
    sure = (float(value) for value in confidence)
    return wire.Canvas(
        request_id=request_id,
        candidate=candidate,
        canvas=number,
        step=canvas.steps,
        max_steps=canvas.schedule.max_steps,
        text=text,
        text_offsets=tuple(offsets),
        confidence=tuple(
            1.0 if fixed else round(min(1.0, value), 4)
            for fixed, value in zip(canvas.fixed, sure, strict=True)
        ),
        accepted=canvas.accepted,
        last=canvas.done,
    )


def _text(pieces: list[bytes]) -> tuple[str, list[int]]:
    """All pieces as text, and where each begins in its UTF-8.

    A character that is spread over positions belongs to the one that completes it; what can never
    become one is U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    parts: list[str] = []
    offsets = []
    length = 0
    for piece in pieces:
        offsets.append(length)
        part = decoder.decode(piece)
        parts.append(part)
        length += len(part.encode())
    parts.append(decoder.decode(b"", final=True))
    return "".join(parts), offsets
