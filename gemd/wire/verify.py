"""What daemon and verifier say to each other: one order in, reports out, as JSON lines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gemd.wire.base import ErrorBody, Message


class WantedFile(Message):
    """One file as it is said to be."""

    name: str = Field(min_length=1)
    """For people: its path inside the variant."""
    path: str = Field(min_length=1)
    """Where it is."""
    size_bytes: int = Field(ge=0)
    sha256: str = ""
    """Of its content; empty if nobody has said."""


class Examine(Message):
    """A variant whose files are to be checked."""

    path: str = Field(min_length=1)
    """The GGUF file, the first one of a split one, or the directory of a checkpoint."""
    engine: Literal["llama", "diffusion", "none"]
    """What runs it: ``llama`` a GGUF file, ``diffusion`` a DiffusionGemma checkpoint, and nothing a
    checkpoint that others are made from."""
    files: tuple[WantedFile, ...] = Field(min_length=1)
    """All of them; where nobody has said how large one is, as it was found."""
    quantization: str = ""
    """Such as ``Q4_K_M``: how much of the source may be lost."""
    tensors: str = ""
    """Path of the list of what its quantizer has written (`gemd.wire.quantize.TENSOR_LIST`); empty
    if that is not known."""
    source: str = ""
    """Path of what it was made from, if that is here."""
    depth: Literal["files", "full"] = "files"
    """``full`` loads it, asks it something and compares it with its source."""
    chat_template: str | None = None
    """Jinja source used instead of the one in the file."""
    windows: int = Field(default=8, gt=0)
    """Of the probe text, how many are read, at most."""
    threads: int = Field(default=1, gt=0)
    device: str = "cpu"
    """Where a block-diffusion model is computed, as torch names it."""
    memory_bytes: int = Field(default=0, ge=0)
    """What a model may take of main memory; one that takes more is not loaded."""


class CheckMade(Message):
    """One check. Fields as `CheckResult` of the API."""

    check: str
    passed: bool
    detail: str
    value: float | None = None
    limit: float | None = None


class LeftOut(Message):
    """A check that could not be made; it has neither passed nor failed."""

    check: str
    why: str


class Progress(Message):
    """How far it is."""

    check: str
    """The one that is being made."""
    current_bytes: int = 0
    """Of what all checks together read from end to end."""
    total_bytes: int = 0


class Examined(Message):
    """What an order ended with."""

    checks: tuple[CheckMade, ...]
    """In the order in which they were made; only the last ones can have failed."""
    left_out: tuple[LeftOut, ...] = ()


class Report(Message):
    """One line of the verifier. Exactly one of the three is set; the last two end it."""

    progress: Progress | None = None
    examined: Examined | None = None
    error: ErrorBody | None = None
