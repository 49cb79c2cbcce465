"""Out of memory as one exception, whatever ran out, and what a request is told of it."""

from __future__ import annotations

import contextlib
import gc
import traceback
from typing import TYPE_CHECKING, Final

import torch

from gemd.errors import BudgetExceededError
from gemd.quantities import human_bytes
from gemd.worker.memory import give_back, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAID_OF_MEMORY: Final = ("can't allocate memory", "out of memory", "not enough memory")
"""By allocators that raise a plain RuntimeError: the processor's has no class of its own."""


class OutOfMemoryError(Exception):
    """An allocation failed; the state of everything that was allocated before is sound."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Within, allocations that fail raise `OutOfMemoryError`, and what was half-made is let go."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_lack(error):
            raise
        # The frames that failed hang on the error, and on them the tensors that did fit.
        traceback.clear_frames(error.__traceback__)
        raise OutOfMemoryError(_first_line(error)) from None


def _is_lack(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(said in str(error) for said in _SAID_OF_MEMORY)


def recover(device: torch.device) -> None:
    """Give back what the allocator keeps for later: in pieces it may be the room that was short."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        give_back()


def lack(what: str, cause: OutOfMemoryError, device: torch.device) -> BudgetExceededError:
    """What a request is told.

    Args:
        what: It was for, as in «to read 512 tokens».
        cause: That failed.
        device: Whose memory.

    """
    metadata: dict[str, object] = {"device": device}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_allocated(device)
        metadata |= {"free_bytes": free, "total_bytes": total, "held_bytes": held}
        state = f"{human_bytes(free)} of {human_bytes(total)} are free, {human_bytes(held)} ours"
    else:
        held = resident_bytes()
        metadata |= {"held_bytes": held}
        state = f"the worker holds {human_bytes(held)}"
    return BudgetExceededError(
        f"there was no memory on {device} {what}",
        why=f"{state}; {cause}",
        advice=("gemctl status", "shorten the prompt, or ask for fewer candidates"),
        metadata=metadata,
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300] or type(error).__name__
