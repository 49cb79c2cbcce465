"""Frames and messages between the daemon and a worker process.

A frame is a 4-byte big-endian length and that many bytes of JSON: one object with
the worker's identity under ``w`` and one message under ``m``. The identity travels
with every frame, so that an answer can never be taken for another model's (LocalAI had
to retrofit that onto every request after recycled ports answered for the wrong model).

The channel is a `socket.socketpair`: there is no listener to protect, and its end of
file is each side's notice of the other's death. A round trip takes about 75 µs.

The order of one life::

    worker  Hello, Progress*, Ready | Failed
    daemon  Load                                     (after Hello)
    daemon  Generate, Score, Embed, Count, Cancel …  (after Ready, any number at once)
    worker  Started, (Canvas | Delta)*, Finished* | RequestFailed     per Generate
    daemon  Resize                                   (while nothing runs)
    worker  Resized | RequestFailed
    daemon  Drain                                    worker finishes what runs: Drained
    daemon  closes the socket                        worker ends itself
"""

from __future__ import annotations

from gemd.wire.answers import (
    Alternative,
    Answer,
    Canvas,
    Continuation,
    Counted,
    Delta,
    Embeddings,
    Finished,
    FinishReason,
    RequestFailed,
    Resized,
    Scores,
    Started,
    TokenLogprob,
    Trace,
)
from gemd.wire.base import ErrorBody
from gemd.wire.frames import (
    MAX_FRAME_BYTES,
    FrameReader,
    WireError,
    decode_for_daemon,
    decode_for_worker,
    encode,
)
from gemd.wire.to_daemon import (
    PROTOCOL,
    Drained,
    Failed,
    FromWorker,
    Hello,
    Phase,
    Pong,
    Progress,
    Ready,
    ToDaemon,
)
from gemd.wire.to_worker import (
    CacheType,
    Cancel,
    ChatMessage,
    Count,
    Drain,
    Embed,
    Generate,
    Load,
    Ping,
    Pooling,
    Prompt,
    Request,
    Resize,
    Sampling,
    Score,
    Span,
    ToWorker,
    Work,
)

__all__ = [
    "MAX_FRAME_BYTES",
    "PROTOCOL",
    "Alternative",
    "Answer",
    "CacheType",
    "Cancel",
    "Canvas",
    "ChatMessage",
    "Continuation",
    "Count",
    "Counted",
    "Delta",
    "Drain",
    "Drained",
    "Embed",
    "Embeddings",
    "ErrorBody",
    "Failed",
    "FinishReason",
    "Finished",
    "FrameReader",
    "FromWorker",
    "Generate",
    "Hello",
    "Load",
    "Phase",
    "Ping",
    "Pong",
    "Pooling",
    "Progress",
    "Prompt",
    "Ready",
    "Request",
    "RequestFailed",
    "Resize",
    "Resized",
    "Sampling",
    "Score",
    "Scores",
    "Span",
    "Started",
    "ToDaemon",
    "ToWorker",
    "TokenLogprob",
    "Trace",
    "WireError",
    "Work",
    "decode_for_daemon",
    "decode_for_worker",
    "encode",
]
