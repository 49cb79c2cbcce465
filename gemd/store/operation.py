"""What a piece of long work on files is: its kind, its state, and one snapshot of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.store.progress import PullProgress

if TYPE_CHECKING:
    from gemd.errors import GemdError
    from gemd.store.progress import Unit
    from gemd.store.releasing import Deleted
    from gemd.store.results import Pruned, Quantized, Verified
    from gemd.store.shelf import ModelFile

    Result = ModelFile | Deleted | Quantized | Verified | Pruned


class Kind(enum.Enum):
    """What is done."""

    PULL = "pull"
    QUANTIZE = "quantize"
    VERIFY = "verify"
    DELETE = "delete"
    PRUNE = "prune"

    @property
    def noun(self) -> str:
        """What one of them is called."""
        nouns = {"quantize": "quantization", "verify": "verification", "delete": "removal"}
        return nouns.get(self.value, self.value)

    def command_for(self, model: str) -> str:
        """The command that begins it; `model` is empty for the whole store."""
        verb = "rm" if self is Kind.DELETE else self.value
        more = " --to …" if self is Kind.QUANTIZE else ""
        return f"gemctl {verb} {model}{more}".rstrip()


class State(enum.Enum):
    """How far it is. All but RUNNING are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Operation:
    """A complete snapshot. Times are seconds since the epoch.

    Attributes:
        id: Unique; never used again.
        kind: What is done.
        state: How far.
        model: Id of the model it works on; empty of what is done to the whole store.
        variant: Id of the variant; empty for all of them.
        created: When it was started, by this daemon or an earlier one.
        updated: When this snapshot was made.
        ended: When it ended; None while it runs.
        progress: Files, phase, message, source, rate; the rate is 0 and the phase empty at
            the end.
        result: What came of it, once it has succeeded.
        error: Why it did not; set if it failed or was cancelled.

    """

    id: str
    kind: Kind
    state: State
    model: str
    variant: str
    created: float
    updated: float
    ended: float | None = None
    progress: PullProgress = field(default_factory=PullProgress)
    result: Result | None = None
    error: GemdError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state is not State.RUNNING

    @property
    def units(self) -> tuple[Unit, ...]:
        """Files, in the order of work."""
        return self.progress.units
