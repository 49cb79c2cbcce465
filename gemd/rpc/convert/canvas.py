"""What only block-diffusion models know: spans of a text with gaps, and denoising steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd import wire
from gemd.rpc.convert.fields import check_range, invalid
from gemd.v1 import generation_pb2 as generation
from gemd.v1 import generation_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SPANS = 256
MAX_SPAN_BYTES = 1 << 20
"""Of all texts together: more than a context of any model holds between gaps."""
MAX_SPAN_TOKENS = 256
"""Of one gap: the canvas of the published models."""


def spans_of(given: Sequence[generation.CanvasSpan]) -> tuple[wire.Span, ...]:
    """The text with gaps of a request; empty if it has none.

    Raises:
        InvalidRequestError: There are too many or too large spans, one is not set, or none is
            free; names its path.

    """
    if not given:
        return ()
    check_range(len(given), field="spans", most=MAX_SPANS)
    spans = tuple(_span(each, f"spans[{index}]") for index, each in enumerate(given))
    size = sum(len(span.text.encode()) for span in spans)
    if size > MAX_SPAN_BYTES:
        raise invalid(
            "spans",
            f"the texts of spans may have {MAX_SPAN_BYTES} bytes together, got {size}",
            size_bytes=size,
            limit_bytes=MAX_SPAN_BYTES,
        )
    if not any(span.free for span in spans):
        raise invalid(
            "spans", "one of the spans must be free", why="without a gap there is nothing to write"
        )
    return spans


def _span(message: generation.CanvasSpan, field: str) -> wire.Span:
    match message.WhichOneof("span"):
        case "fixed_text":
            return wire.Span(text=message.fixed_text)
        case "free":
            gap = message.free
            check_range(gap.max_tokens, field=f"{field}.free.max_tokens", most=MAX_SPAN_TOKENS)
            return wire.Span(free=True, text=gap.initial_text, max_tokens=gap.max_tokens)
        case _:
            raise invalid(field, f"{field} must be set: fixed_text or free")


def canvas(message: wire.Canvas) -> service.GenerateResponse:
    """One denoising step."""
    return service.GenerateResponse(
        canvas=generation.Canvas(
            candidate=message.candidate,
            canvas=message.canvas,
            step=message.step,
            max_steps=message.max_steps,
            text=message.text,
            text_offsets=message.text_offsets,
            confidence=message.confidence,
            accepted=message.accepted,
            last=message.last,
        )
    )
