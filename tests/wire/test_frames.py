"""Frames: what goes in comes out, and nothing else does."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gemd import wire
from gemd.errors import BY_REASON, GemdError, UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Callable

IDENTITY = "model-x#1"
IDS = st.text("abc0-", min_size=1, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
TOKENS = st.lists(st.integers(0, 300_000), max_size=5).map(tuple)
LOGPROBS = st.floats(max_value=0, allow_nan=False)

PROMPTS = st.one_of(
    st.builds(wire.Prompt, text=TEXTS),
    st.builds(wire.Prompt, tokens=TOKENS),
    st.builds(
        wire.Prompt,
        chat=st.lists(
            st.builds(wire.ChatMessage, role=st.sampled_from(["system", "user"]), text=TEXTS)
        ).map(tuple),
    ),
)
SPANS = st.builds(wire.Span, free=st.booleans(), text=TEXTS, max_tokens=st.integers(0, 256))
SHARES = st.floats(0, 1)
SAMPLINGS = st.builds(
    wire.Sampling,
    temperature=st.none() | st.floats(0, 5),
    seed=st.none() | st.integers(0, 2**64 - 1),
    logit_bias=st.dictionaries(st.integers(0, 99), st.sampled_from([-math.inf, 1.5])),
    stop=st.lists(TEXTS, max_size=3).map(tuple),
    max_tokens=st.none() | st.integers(1, 9),
)
TO_WORKER = st.one_of(
    st.builds(
        wire.Generate,
        request_id=IDS,
        prompt=PROMPTS,
        sampling=SAMPLINGS,
        thinking=st.none() | st.booleans(),
        candidates=st.integers(1, 64),
        spans=st.lists(SPANS, max_size=3).map(tuple),
        watch_canvas=st.booleans(),
        answer_prefix=TEXTS | TOKENS,
        draft=TEXTS | TOKENS,
    ),
    st.builds(
        wire.Score,
        request_id=IDS,
        prompt=PROMPTS,
        continuations=st.lists(TEXTS | TOKENS, max_size=3).map(tuple),
    ),
    st.builds(
        wire.Embed,
        request_id=IDS,
        texts=st.lists(TEXTS, max_size=3).map(tuple),
        pooling=st.sampled_from([None, "mean", "last"]),
    ),
    st.builds(
        wire.Resize,
        request_id=IDS,
        context_tokens=st.integers(1, 2**20),
        prompt_cache_bytes=st.integers(0, 2**40),
    ),
    st.builds(wire.Cancel, request_id=IDS),
    st.just(wire.Drain()),
    st.builds(wire.Ping, nonce=st.integers()),
)
TO_DAEMON = st.one_of(
    st.builds(
        wire.Canvas,
        request_id=IDS,
        candidate=st.integers(0, 63),
        canvas=st.integers(0, 9),
        step=st.integers(1, 48),
        max_steps=st.just(48),
        text=TEXTS,
        text_offsets=TOKENS,
        confidence=st.lists(SHARES, max_size=4).map(tuple),
        accepted=st.integers(0, 256),
        last=st.booleans(),
    ),
    st.builds(
        wire.Finished,
        request_id=IDS,
        candidate=st.integers(0, 63),
        last=st.booleans(),
        reason=st.sampled_from(["stop", "stop_string", "cancelled"]),
        stop_string=st.none() | TEXTS,
        prompt_tokens=st.integers(0, 9),
        cached_tokens=st.integers(0, 9),
        completion_tokens=st.integers(0, 9),
        queue_seconds=SHARES,
        prefill_seconds=SHARES,
        decode_seconds=SHARES,
        reasoning_tokens=st.integers(0, 9),
        filled_spans=st.lists(TEXTS, max_size=3).map(tuple),
        trace=st.none() | st.from_type(wire.Trace),
        drafted_tokens=st.integers(0, 9),
        accepted_tokens=st.integers(0, 9),
    ),
    st.from_type(wire.Ready),
    st.builds(
        wire.Delta,
        request_id=IDS,
        candidate=st.integers(0, 63),
        text=TEXTS,
        reasoning_text=TEXTS,
        tokens=TOKENS,
        logprobs=st.lists(
            st.builds(
                wire.TokenLogprob,
                token=st.integers(0, 9),
                piece=st.binary(max_size=6),
                logprob=LOGPROBS,
                rank=st.integers(0, 9),
                entropy=st.floats(0, 20),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(
        wire.Embeddings,
        request_id=IDS,
        vectors=st.lists(st.lists(st.floats(allow_nan=False), max_size=4).map(tuple)).map(tuple),
        tokens=TOKENS,
    ),
    st.builds(wire.Progress, phase=st.just("weights"), current=st.integers(), total=st.integers()),
    st.builds(
        wire.Resized,
        request_id=IDS,
        context_tokens=st.integers(1, 2**20),
        memory_bytes=st.dictionaries(IDS, st.integers(0, 2**40), max_size=2),
    ),
    st.just(wire.Drained()),
)


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


@given(st.lists(TO_WORKER, max_size=5), st.data())
@settings(deadline=None, max_examples=60)
def test_any_cut_of_the_stream_gives_the_same_messages(
    messages: list[wire.ToWorker], data: st.DataObject
) -> None:
    """However the bytes are cut up on the way, every message arrives equal and in order."""
    stream = b"".join(wire.encode(IDENTITY, message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = wire.FrameReader()
    received = [
        wire.decode_for_worker(IDENTITY, body)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for body in reader.feed(memoryview(stream)[start:end])
    ]
    assert received == messages


@given(TO_DAEMON)
@settings(deadline=None, max_examples=60)
def test_messages_to_the_daemon_survive_the_way(message: wire.FromWorker) -> None:
    """Infinite log-probabilities included."""
    (body,) = wire.FrameReader().feed(wire.encode(IDENTITY, message))
    assert wire.decode_for_daemon(IDENTITY, body) == message


def test_banned_tokens_keep_their_infinity() -> None:
    """A bias and a log-probability of minus infinity are ordinary values."""
    sampling = wire.Sampling(logit_bias={7: -math.inf})
    request = wire.Generate(request_id="r", prompt=wire.Prompt(text="x"), sampling=sampling)
    assert wire.decode_for_worker(IDENTITY, wire.encode(IDENTITY, request)[4:]) == request


@pytest.mark.parametrize(
    "build",
    [
        lambda: wire.Span(free=True, max_tokens=-1),
        lambda: wire.Sampling(temperature=-0.1),
        lambda: wire.Generate(request_id="r", prompt=wire.Prompt(text="x"), candidates=0),
    ],
)
def test_values_out_of_range_are_no_messages(build: Callable[[], object]) -> None:
    """No answer at all, less than no token, or a temperature below the coldest."""
    with pytest.raises(ValidationError):
        build()


def test_a_request_asks_for_one_plain_answer_unless_it_says_more() -> None:
    """Defaults of both sides: no gaps, no pictures, one candidate whose end is the request's."""
    asked = wire.Generate(request_id="r", prompt=wire.Prompt(text="x"))
    assert (asked.candidates, asked.spans, asked.watch_canvas, asked.thinking) == (
        1,
        (),
        False,
        None,
    )
    assert asked.sampling.temperature is None
    assert wire.Finished.model_fields["last"].default is True


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_is_a_wire_error_and_nothing_else(garbage: bytes) -> None:
    """Random bytes as a stream and as a body, in both directions."""
    try:
        bodies = list(wire.FrameReader().feed(garbage))
    except wire.WireError:
        bodies = []
    for body in [*bodies, garbage]:
        for decode in (wire.decode_for_worker, wire.decode_for_daemon):
            with pytest.raises(wire.WireError):
                decode(IDENTITY, body)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"w":"model-x#1"}',
        b'{"w":"model-x#1","m":{"type":"unknown"}}',
        b'{"w":"model-x#1","m":{"type":"drained"},"more":1}',
        b'{"w":"model-x#1","m":{"type":"drained","more":1}}',
        b'{"w":"model-x#1","m":{"type":"pong","nonce":1e999}}',
        b'{"w":"model-x#1","m":{"type":"delta","request_id":"r","text":"\\ud800"}}',
        b'{"w":"model-x#1","m":{"type":"delta","request_id":"r","text":"\xff"}}',
        b'{"w":"model-x#1","m":{"type":"ping","nonce":1}}',
        b'{"w":"model-x#2","m":{"type":"drained"}}',
    ],
)
def test_wrong_bodies_are_refused(content: bytes) -> None:
    """No JSON, no frame, unknown or superfluous fields, another direction, another worker."""
    with pytest.raises(wire.WireError):
        wire.decode_for_daemon(IDENTITY, content)


@pytest.mark.parametrize("length", [0, wire.MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_impossible_lengths_are_refused_before_the_body(length: int) -> None:
    """Nothing is buffered for a frame that can never be valid."""
    with pytest.raises(wire.WireError, match=str(length)):
        list(wire.FrameReader().feed(length.to_bytes(4, "big")))


def test_what_cannot_be_a_frame_is_not_encoded() -> None:
    """Too large, no Unicode, or an identity that JSON would have to escape."""
    huge = wire.Delta(request_id="r", text="x" * wire.MAX_FRAME_BYTES)
    with pytest.raises(wire.WireError, match="exceeds"):
        wire.encode(IDENTITY, huge)
    with pytest.raises(wire.WireError, match="JSON"):
        wire.encode(IDENTITY, wire.Delta(request_id="r", text="\ud800"))
    for identity in ('a"b', "a\\b", "ä", "a\n"):
        with pytest.raises(wire.WireError, match="identity"):
            wire.encode(identity, wire.Drain())


def test_a_frame_is_a_length_and_json() -> None:
    """The format of the module's docstring, byte for byte."""
    expected: dict[str, Any] = {"w": IDENTITY, "m": {"type": "cancel", "request_id": "r"}}
    frame = wire.encode(IDENTITY, wire.Cancel(request_id="r"))
    assert frame == _frame(frame[4:])
    assert json.loads(frame[4:]) == expected


@pytest.mark.parametrize("kind", [BY_REASON[reason] for reason in sorted(BY_REASON)])
def test_every_domain_error_crosses_the_socket(kind: type[GemdError]) -> None:
    """Class and texts are the same on the other side."""
    error = kind("what", why="why", advice=("gemctl x",), metadata={"n": 1})
    failed = wire.Failed(error=wire.ErrorBody.of(error))
    (body,) = wire.FrameReader().feed(wire.encode(IDENTITY, failed))
    received = wire.decode_for_daemon(IDENTITY, body)
    assert isinstance(received, wire.Failed)
    rebuilt = received.error.error()
    assert type(rebuilt) is kind
    assert str(rebuilt) == "what: why"
    assert rebuilt.advice == ("gemctl x",)
    assert rebuilt.metadata == {"n": "1"}


def test_an_unknown_reason_is_unexpected() -> None:
    """An engine environment with another gemd may know other errors."""
    body = wire.ErrorBody(reason="NEW", message="what")
    assert isinstance(body.error(), UnexpectedError)
