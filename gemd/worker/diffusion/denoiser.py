"""One denoising step of several canvases: from what each wishes to what each reads.

On a GPU that the kernels are for, a step is recorded once for each number of canvases, as a CUDA
graph, and replayed from then on: five hundred launches for the price of one. All that changes goes
to the device in one copy before it, and comes back in one after it. Elsewhere, and for wishes that
the kernels have no way for (filters, a bias), a step is made through `Stack` and `Head`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import torch

from gemd.worker.diffusion.compute.packed import PackedExperts
from gemd.worker.diffusion.compute.paths import TRITON_PATH
from gemd.worker.diffusion.head import reading_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.worker.diffusion.fused_head import FusedHead
    from gemd.worker.diffusion.fused_pass import FusedPass
    from gemd.worker.diffusion.head import Head, Wish
    from gemd.worker.diffusion.sampler import Reading
    from gemd.worker.diffusion.stack import Stack

Numbers = TypeVar("Numbers", torch.Tensor, "np.ndarray[Any, Any]")

ROW_FIELDS: Final = 5
"""Numbers that a canvas has beside those of its positions: slot, three extents, temperature."""
POSITION_FIELDS: Final = 3
"""Numbers that a position has: token, what it is drawn with, whether it is given."""


class Denoiser:
    """Makes steps.

    Args:
        stack: The model's layers and its cache.
        head: Reads what they give.

    """

    def __init__(self, stack: Stack, head: Head) -> None:
        self._stack, self._head = stack, head
        self._parts: tuple[FusedPass, FusedHead] | None = None
        self._steps: dict[int, Step] = {}
        self._pool: Any | None = None

    def forget(self) -> None:
        """Let go of what was recorded: another cache comes, or another way to compute."""
        self._steps.clear()
        self._pool = None

    @property
    def records(self) -> bool:
        """Whether steps are made in few launches, and recorded on a GPU.

        Where all experts go through the Triton kernels, as `use_path` lets them only where these
        can run; the other ways wait for the host.
        """
        experts = (layer.experts for layer in self._stack.decoder.layers)
        return all(
            isinstance(module, PackedExperts) and module.arithmetic.name == TRITON_PATH
            for module in experts
        )

    def step(
        self, slots: Sequence[int], wishes: Sequence[Wish], soft: Sequence[torch.Tensor | None]
    ) -> list[tuple[Reading, torch.Tensor]]:
        """Denoise once.

        Args:
            slots: That each canvas goes on from.
            wishes: What stands on each, and how its logits are read.
            soft: What each was told to expect; None at a first step. Shape (canvas, hidden).

        Returns:
            For each what was read, and what to expect at its next step.

        """
        plain = any(wish.filters.any or wish.bias is not None for wish in wishes)
        if plain or not self.records:
            return self._plain(slots, wishes, soft)
        with torch.inference_mode():
            return self._recorded(len(slots)).run(slots, wishes, soft)

    def _plain(
        self, slots: Sequence[int], wishes: Sequence[Wish], soft: Sequence[torch.Tensor | None]
    ) -> list[tuple[Reading, torch.Tensor]]:
        tokens = torch.from_numpy(np.stack([wish.tokens for wish in wishes]))
        hidden = self._stack.denoise(slots, tokens.to(self._stack.device), _stacked(soft))
        readings, next_soft = self._head.read(hidden, wishes)
        return list(zip(readings, next_soft, strict=True))

    def _recorded(self, rows: int) -> Step:
        if rows not in self._steps:
            if self._parts is None:
                self._parts = self._fused()
            if self._stack.device.type == "cuda" and self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            self._steps[rows] = Step(rows, self._stack, *self._parts, pool=self._pool)
        return self._steps[rows]

    def _fused(self) -> tuple[FusedPass, FusedHead]:
        # Both need Triton, which may be missing.
        from gemd.worker.diffusion.fused_head import FusedHead  # noqa: PLC0415 - see above
        from gemd.worker.diffusion.fused_pass import FusedPass  # noqa: PLC0415 - as above

        stack = self._stack
        head = FusedHead(
            stack.embedding,
            stack.embedding_scale,
            stack.softcap,
            canvas_tokens=stack.canvas_tokens,
            room=self._head.room,
        )
        return FusedPass(stack), head


class Step:
    """A step of so many canvases, with the memory that it reads and writes.

    Args:
        rows: Canvases.
        stack: Whose cache is read.
        fused: The pass over the layers.
        head: The reading.
        pool: Of memory that steps share, one after the other; None where nothing is recorded.

    """

    def __init__(
        self,
        rows: int,
        stack: Stack,
        fused: FusedPass,
        head: FusedHead,
        *,
        pool: Any | None,
    ) -> None:
        self._rows, self._stack, self._fused, self._head = rows, stack, fused, head
        canvas, device = stack.canvas_tokens, stack.device
        on_gpu = device.type == "cuda"
        size = rows * (ROW_FIELDS + POSITION_FIELDS * canvas)
        # Pinned: a copy from other memory waits for all that is under way on the device.
        self._host = torch.zeros(size, dtype=torch.int32, pin_memory=on_gpu)
        self._sent = torch.zeros(size, dtype=torch.int32, device=device)
        shape = (rows, canvas, stack.embedding.shape[1])
        self._soft = torch.zeros(shape, dtype=stack.dtype, device=device)
        self._next_soft = torch.zeros_like(self._soft)
        self._columns = torch.zeros((rows, 6, canvas), device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pool = pool

    def run(
        self, slots: Sequence[int], wishes: Sequence[Wish], soft: Sequence[torch.Tensor | None]
    ) -> list[tuple[Reading, torch.Tensor]]:
        """See `Denoiser.step`; for just as many canvases."""
        self._send(slots, wishes)
        for row, known in enumerate(soft):
            if known is None:
                self._soft[row].zero_()
            else:
                self._soft[row].copy_(known)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._work()
            if self._pool is not None:
                self._record()
        # A copy, since the next step of other canvases writes over it.
        next_soft = self._next_soft.clone()
        # The one wait for the device in a step.
        columns = self._columns.cpu().numpy()
        return [(reading_of(columns[row]), next_soft[row]) for row in range(self._rows)]

    def _send(self, slots: Sequence[int], wishes: Sequence[Wish]) -> None:
        by_row, by_position = _views(self._host.numpy(), self._rows)
        for row, (slot, wish) in enumerate(zip(slots, wishes, strict=True)):
            by_row[0, row] = slot
            by_row[1:4, row] = self._stack.slots.extents(slot)
            by_row[4, row] = np.float32(wish.temperature).view(np.int32)
            by_position[0, row] = wish.tokens
            by_position[1, row] = wish.uniforms.astype(np.float32).view(np.int32)
            by_position[2, row] = wish.fixed
        self._sent.copy_(self._host, non_blocking=True)

    def _work(self) -> None:
        """All launches of a step."""
        from gemd.worker.diffusion.fused_pass import Given  # noqa: PLC0415 - needs Triton

        by_row, by_position = _views(self._sent, self._rows)
        tokens = by_position[0].long()
        given = Given(
            tokens=tokens,
            soft=self._soft,
            slots=by_row[0],
            stored=by_row[1],
            windowed=by_row[2],
            first=by_row[3],
        )
        self._head.read(
            self._fused(given),
            by_row[4].view(torch.float32),
            by_position[1].view(torch.float32),
            by_position[2].bool(),
            tokens,
            self._next_soft,
            self._columns,
        )

    def _record(self) -> None:
        """Let later steps be replayed. Kernels are compiled by now, which cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of this process prepare prompts, and may not be hindered by it.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._work()
        except torch.OutOfMemoryError as error:
            # What was computed stands. A recording needs memory of its own, and there is none.
            self._pool = None
            sys.stderr.write(
                f"steps of {self._rows} canvases are not recorded, and slower for it: {error}\n"
            )
        else:
            self._graph = graph


def _views(numbers: Numbers, rows: int) -> tuple[Numbers, Numbers]:
    """Numbers by canvas, shape (fields, rows); and by position, shape (fields, rows, canvas)."""
    border = ROW_FIELDS * rows
    return (
        numbers[:border].reshape(ROW_FIELDS, rows),
        numbers[border:].reshape(POSITION_FIELDS, rows, -1),
    )


def _stacked(soft: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """What canvases were told to expect; zeros at a first step, None where each is at its first."""
    known = next((each for each in soft if each is not None), None)
    if known is None:
        return None
    return torch.stack([torch.zeros_like(known) if each is None else each for each in soft])
