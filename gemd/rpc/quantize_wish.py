"""What is asked of a quantization, and what is there to be verified at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from gemd.store.manifest import Checked
from gemd.store.progress import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.rpc.quantize_choice import Wanted
    from gemd.wire.quantize import Order, Told


class Wish(BaseModel):
    """One quantization as it was asked for; this is what the next daemon gets.

    Attributes:
        model: Name of the profile, or absolute path.
        quantization: Of the result.
        source: Id of the variant to start from; empty of a path.
        variant: Id of the result.
        force: Make it again though it is there.
        discard_source: Remove what of the source was fetched for this.
        accept_licence: The user agrees to the terms of the source.
        dense: NVFP4: the dense layers too.
        importance: Path of an importance matrix; empty for none.
        since: When it was asked for, in seconds since the epoch.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    quantization: str
    source: str
    variant: str
    force: bool
    discard_source: bool
    accept_licence: bool
    dense: bool
    importance: str
    since: float

    @property
    def result(self) -> tuple[str, str, bool, str, bool]:
        """What decides about the result, and about what becomes of its source."""
        return (self.quantization, self.source, self.dense, self.importance, self.discard_source)


@dataclass(frozen=True, slots=True)
class Finished:
    """What is to be verified before it is accepted.

    Attributes:
        wanted: What was asked for.
        order: What the quantizer got; its target has the files.
        made: What it made.
        source: Where the source is; None if it was used up.

    """

    wanted: Wanted
    order: Order
    made: Told
    source: Path | None


Check = Callable[[Finished, Tracker], Awaitable[tuple[Checked, ...]]]
"""Looks at what was made; tells how far it is."""
