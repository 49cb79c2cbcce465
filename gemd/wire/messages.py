"""What daemon and worker say to each other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gemd.wire.base import ErrorBody, Message

PROTOCOL = 3
"""Raised whenever a message changes; both sides must agree, they are installed together."""


# --- daemon to worker -------------------------------------------------------------------

CacheType = Literal["f16", "q8_0", "q4_0"]
"""Element type of the KV cache; the same as `gemd.footprint.memory.CacheType`."""


class Load(Message):
    """Load a model. Exactly one per worker, right after its Hello."""

    type: Literal["load"] = "load"
    path: str
    """Absolute path of the model's first file."""
    context_tokens: int = Field(gt=0)
    """Cells of the KV cache, shared by all sequences; one request may use all of them."""
    max_sequences: int = Field(gt=0)
    """How many requests are decoded together."""
    threads: int = Field(gt=0)
    prompt_cache_bytes: int = Field(default=0, ge=0)
    """The most that evaluated prompts may take outside the KV cache; 0 keeps none there."""
    gpu_layers: int = Field(default=0, ge=0)
    """Layers on the GPU, from the last; the output is one. More than the library can place is
    ENGINE_MISSING, never a quiet run on the CPU."""
    host_expert_layers: int = Field(default=0, ge=0)
    """First layers whose experts' weights stay in main memory."""
    cache_type: CacheType = "f16"
    """Of keys and values."""
    use_mmap: bool | None = None
    """Map the file instead of reading it. None maps a model for main memory, whose pages several
    processes share, and reads one for a GPU with a memory of its own, or one of which the CPU
    backend would make a second copy: of such files nothing is to stay here twice."""
    check_tensors: bool = False
    """Validate the values of quantized blocks while loading; reads the whole file."""
    chat_template: str | None = None
    """Overrides the template in the file."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of one engine only; the scripted worker takes its script from here."""


class ChatMessage(Message):
    """One turn; the text has been joined from the parts of the request."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str


class Prompt(Message):
    """Exactly one of the three is set."""

    chat: tuple[ChatMessage, ...] | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None


class Sampling(Message):
    """How the next token is drawn; every default has been filled in by the daemon."""

    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    repeat_penalty: float = Field(default=1.0, gt=0)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    penalty_last_n: int = Field(default=64, ge=-1)
    """Window of the three penalties in tokens, prompt included; -1 is the whole context."""
    seed: int | None = Field(default=None, ge=0)
    """None draws a fresh one."""
    logit_bias: dict[int, float] = Field(default_factory=dict)
    stop: tuple[str, ...] = ()
    max_tokens: int | None = Field(default=None, ge=0)
    """0 only reads the prompt into the cache; None decodes until the model ends or the
    context is full."""
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0)
    """None reports none; n reports the drawn token and n alternatives per position."""


class Generate(Message):
    """Answer one prompt as a stream of Started, Delta*, Finished."""

    type: Literal["generate"] = "generate"
    request_id: str
    prompt: Prompt
    sampling: Sampling = Sampling()
    deadline_seconds: float | None = None
    """Counted from the moment the worker reads this frame; past it, RequestFailed."""


class Score(Message):
    """Log-probabilities of given continuations of one prompt. Answer: Scores."""

    type: Literal["score"] = "score"
    request_id: str
    prompt: Prompt
    continuations: tuple[str | tuple[int, ...], ...]
    alternatives: int = Field(default=0, ge=0)
    """How many best tokens to report beside each given one."""
    deadline_seconds: float | None = None


class Embed(Message):
    """One vector per text from the last hidden states. Answer: Embeddings."""

    type: Literal["embed"] = "embed"
    request_id: str
    texts: tuple[str, ...]
    pooling: Literal["mean", "last"] = "mean"
    normalize: bool = True
    deadline_seconds: float | None = None


class Count(Message):
    """Tokens of a prompt as this model's template and tokenizer see it. Answer: Counted."""

    type: Literal["count"] = "count"
    request_id: str
    prompt: Prompt
    include_tokens: bool = False


class Cancel(Message):
    """Drop a request; answered by its Finished(cancelled), or by nothing if it had ended."""

    type: Literal["cancel"] = "cancel"
    request_id: str


class Drain(Message):
    """Take nothing new, finish what runs. Answer: Drained."""

    type: Literal["drain"] = "drain"


class Ping(Message):
    """Ask for a Pong from the engine's own thread: proof that it is not stuck."""

    type: Literal["ping"] = "ping"
    nonce: int


class Resize(Message):
    """Make the context anew in another size; what stands in it is lost. Answer: Resized.

    A worker that answers requests refuses (MODEL_BUSY), as does one that drains. Any other
    RequestFailed leaves it with the size it had, except ENGINE_CRASHED: it had no memory
    for that either, and ends after this frame.
    """

    type: Literal["resize"] = "resize"
    request_id: str
    context_tokens: int = Field(gt=0)
    """As in Load."""
    prompt_cache_bytes: int = Field(ge=0)
    """As in Load; prompts that no longer fit go, the longest unused first."""


# --- worker to daemon -------------------------------------------------------------------


class Hello(Message):
    """The first frame. Sent before any engine is imported."""

    type: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    pid: int
    engine: str


Phase = Literal["import", "open", "weights", "context", "warmup"]


class Progress(Message):
    """Loading goes on. The stall timeout counts from the last of these."""

    type: Literal["progress"] = "progress"
    phase: Phase
    current: int
    total: int
    """0 if unknown."""


class Ready(Message):
    """The model answers. Said after one token has been decoded, never before."""

    type: Literal["ready"] = "ready"
    engine: str
    engine_version: str
    architecture: str
    context_tokens: int
    train_context_tokens: int
    max_sequences: int
    vocabulary: int
    parameters: int
    has_chat_template: bool
    supports_gpu_offload: bool
    devices: tuple[str, ...]
    """What could compute, as the engine names it; ("CPU",) where it sees no GPU."""
    memory_bytes: dict[str, int]
    """Resident bytes after the warm-up, by device. Of main memory ("CPU") only: what a process
    holds of a GPU is the driver's to say."""
    load_seconds: float


class Failed(Message):
    """The load failed for good; the worker ends after this frame."""

    type: Literal["failed"] = "failed"
    error: ErrorBody


class Started(Message):
    """The request has a sequence; its prompt is about to be evaluated."""

    type: Literal["started"] = "started"
    request_id: str
    prompt_tokens: int
    cached_tokens: int
    """Leading prompt tokens whose KV was kept from an earlier request."""


class Alternative(Message):
    """A token that could have stood in a place, and its log-probability."""

    token: int
    piece: bytes
    """The token's own bytes, which may be part of a character; a control token's name."""
    logprob: float


class TokenLogprob(Message):
    """One place: its token and the best alternatives, natural logarithm, temperature 1."""

    token: int
    piece: bytes
    """As in Alternative."""
    logprob: float
    rank: int
    """0 where the token was the model's own first choice."""
    entropy: float
    """Of the whole distribution, in nats."""
    top: tuple[Alternative, ...] = ()
    """Best first; the token itself is one of them if it is good enough."""


class Delta(Message):
    """Text that is final: complete UTF-8, no part of a possible stop string."""

    type: Literal["delta"] = "delta"
    request_id: str
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


FinishReason = Literal["stop", "stop_string", "max_tokens", "context_full", "cancelled"]


class Finished(Message):
    """The last frame of a request that ran."""

    type: Literal["finished"] = "finished"
    request_id: str
    reason: FinishReason
    stop_string: str | None = None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_seconds: float
    """From reading the frame to the first prompt token's evaluation."""
    prefill_seconds: float
    decode_seconds: float


class RequestFailed(Message):
    """The request ended with an error; the worker goes on."""

    type: Literal["request_failed"] = "request_failed"
    request_id: str
    error: ErrorBody


class Continuation(Message):
    """One continuation, token by token."""

    tokens: tuple[TokenLogprob, ...]


class Scores(Message):
    """Answer to Score, in the order of its continuations."""

    type: Literal["scores"] = "scores"
    request_id: str
    prompt_tokens: int
    cached_tokens: int
    continuations: tuple[Continuation, ...]


class Embeddings(Message):
    """Answer to Embed, in the order of its texts."""

    type: Literal["embeddings"] = "embeddings"
    request_id: str
    vectors: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]
    """Token count of each text."""


class Counted(Message):
    """Answer to Count."""

    type: Literal["counted"] = "counted"
    request_id: str
    count: int
    tokens: tuple[int, ...] = ()
    """The ids, if they were asked for."""


class Resized(Message):
    """Answer to Resize. Said after one token has been decoded in the new context."""

    type: Literal["resized"] = "resized"
    request_id: str
    context_tokens: int
    """What requests get now; takes the place of the one in Ready."""
    memory_bytes: dict[str, int]
    """As in Ready, and in its place."""


class Drained(Message):
    """Nothing runs any more and nothing new is taken."""

    type: Literal["drained"] = "drained"


class Pong(Message):
    """Answer to Ping, with the engine's state at a step boundary."""

    type: Literal["pong"] = "pong"
    nonce: int
    active: int
    waiting: int
    cached_tokens: int


Work = Generate | Score | Embed | Count
"""What an engine answers by request id, beside other work."""

Request = Work | Resize
"""What a worker answers by request id."""

ToWorker = Annotated[
    Load | Generate | Score | Embed | Count | Resize | Cancel | Drain | Ping,
    Field(discriminator="type"),
]
Answer = Started | Delta | Finished | RequestFailed | Scores | Embeddings | Counted | Resized
"""What belongs to one request; has its ``request_id``."""

FromWorker = Hello | Progress | Ready | Failed | Answer | Drained | Pong

ToDaemon = Annotated[FromWorker, Field(discriminator="type")]
