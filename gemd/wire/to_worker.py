"""What the daemon says to a worker."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gemd.wire.base import Message

CacheType = Literal["f16", "q8_0", "q4_0"]
"""Element type of the KV cache; the same as `gemd.footprint.memory.CacheType`."""

Pooling = Literal["mean", "last"]
"""How the vectors of a text's tokens become one: their mean, or the last token's."""


class Load(Message):
    """Load a model. Exactly one per worker, right after its Hello."""

    type: Literal["load"] = "load"
    path: str
    """Absolute path of the model's first file; of a diffusion model, of its folder."""
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


class Span(Message):
    """One stretch of a text with gaps: given, or to be written by the model."""

    free: bool = False
    text: str = ""
    """What stands there; of a free span, what it is to be edited from."""
    max_tokens: int = Field(default=0, ge=0)
    """Of a free span; 0 is as long as its text, or else the engine's choice."""


class Sampling(Message):
    """How the next token is drawn; every default has been filled in by the daemon."""

    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy. None is the engine's own: greedy for llama, the released schedule for
    diffusion."""
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
    """Of the answer, `Generate.answer_prefix` included. 0 only reads the prompt into the cache;
    None decodes until the model ends or the context is full."""
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0)
    """None reports none; n reports the drawn token and n alternatives per position."""


class Generate(Message):
    """Answer one prompt: Started, then Canvas and Delta, and a Finished for each candidate."""

    type: Literal["generate"] = "generate"
    request_id: str
    prompt: Prompt
    sampling: Sampling = Sampling()
    deadline_seconds: float | None = None
    """Counted from the moment the worker reads this frame; past it, RequestFailed."""
    thinking: bool | None = None
    """Handed to the chat template where it is set; a template that knows no such thing ignores
    it."""
    candidates: int = Field(default=1, ge=1)
    """Answers, each with its own Deltas and Finished."""
    spans: tuple[Span, ...] = ()
    """The answer is this text with its gaps filled. Of the diffusion engine only."""
    watch_canvas: bool = False
    """Send Canvas messages. Of the diffusion engine only."""
    answer_prefix: str | tuple[int, ...] = ""
    """The answer begins with this, and is gone on with: Deltas and `completion_tokens` have only
    what is new, `Sampling.max_tokens` counts both. It is tokenized as a continuation in Score is,
    so what a Score has evaluated of it is in the cache; `prompt_tokens` leaves it out,
    `cached_tokens` and `prefill_seconds` do not. A stop string that begins in it ends the answer
    before the first new text. Of engines that write from left to right."""
    draft: str | tuple[int, ...] = ""
    """A guess at the answer (behind `answer_prefix`), of which as much is taken over as equals what
    is drawn anyway: it may make the answer faster, and never another one. A model that cannot take
    tokens back leaves it alone: `drafted_tokens` is 0. Of engines that write from left to right."""


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
    pooling: Pooling | None = None
    """None is the way that the model was made for, and the mean where its file says nothing;
    UNSUPPORTED_INPUT if that is a way that its engine does not go."""
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


Work = Generate | Score | Embed | Count
"""What an engine answers by request id, beside other work."""

Request = Work | Resize
"""What a worker answers by request id."""

ToWorker = Annotated[
    Load | Generate | Score | Embed | Count | Resize | Cancel | Drain | Ping,
    Field(discriminator="type"),
]
