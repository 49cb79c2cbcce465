"""``python -m tests.support.attention_cases``: attention of canvases, interpreted, beside torch's.

A process of its own, as in `interpreted`. Reads cases as JSON from stdin, prints one result for
each. On a GPU `compared` may be called where it is needed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from tests.support import apart

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class AttentionCase:
    """What attends to what.

    Attributes:
        dtype: Name of the type.
        heads: Of queries.
        kv_heads: Of keys and values.
        canvas: Queries of a row.
        width: Of a head.
        capacity: Tokens of a slot.
        lengths: By row, the first key and how many are stored before those of the canvas.
        splits: Among how many programs keys are divided; None as the shapes have it.
        blocks: Queries, keys and columns of values of a program; None as the shapes have it.
        repeated: Whether it is computed once more, and each row alone.
        broken: Whether a key of the first row and a query of the second are no numbers.
        seed: Of all numbers.

    """

    dtype: str
    heads: int
    kv_heads: int
    canvas: int
    width: int
    capacity: int
    lengths: tuple[tuple[int, int], ...]
    splits: int | None = None
    blocks: tuple[int, int, int] | None = None
    repeated: bool = False
    broken: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Given:
    """A case's tensors: arguments of `attend`."""

    query: torch.Tensor
    cache: torch.Tensor
    slots: torch.Tensor
    first: torch.Tensor
    stored: torch.Tensor

    def attend(self, case: AttentionCase) -> torch.Tensor:
        """By the kernels."""
        from gemd.worker.diffusion.compute import attention  # noqa: PLC0415 - needs Triton

        return attention.attend(
            self.query,
            self.cache,
            self.slots,
            self.first,
            self.stored,
            splits=case.splits,
            blocks=None if case.blocks is None else attention.Blocks(*case.blocks, 4, 1),
        )

    def row(self, at: int) -> Given:
        """One row alone."""
        only = slice(at, at + 1)
        return Given(
            self.query[only].contiguous(),
            self.cache,
            self.slots[only].contiguous(),
            self.first[only].contiguous(),
            self.stored[only].contiguous(),
        )


def given(case: AttentionCase, device: torch.device = CPU) -> Given:
    """Tensors at random; whatever no row sees is NaN, slots between the rows' own too."""
    generator = torch.Generator().manual_seed(case.seed)
    rows, dtype = len(case.lengths), getattr(torch, case.dtype)
    shape = (rows, case.heads, case.canvas, case.width)
    # Scores of some size, so that their softmax is not flat.
    query = torch.randn(shape, generator=generator) * (2 * case.width**-0.5)
    cache = torch.full((2, rows + 2, case.kv_heads, case.capacity, case.width), torch.nan)
    slots = torch.randperm(rows + 2, generator=generator)[:rows]
    for slot, (first, stored) in zip(slots, case.lengths, strict=True):
        seen = cache[:, slot, :, first : stored + case.canvas]
        seen.copy_(torch.randn(seen.shape, generator=generator))
    if case.broken:
        cache[0, slots[0], 0, case.lengths[0][1]] = torch.nan
        query[1, 0, 0] = torch.nan
    first, stored = torch.tensor(case.lengths, dtype=torch.int32).T
    return Given(
        query.to(device, dtype),
        cache.to(device, dtype),
        slots.to(device, torch.int32),
        first.contiguous().to(device),
        stored.contiguous().to(device),
    )


def expected(case: AttentionCase, of: Given) -> torch.Tensor:
    """By torch on the CPU, in float32 of the same numbers; (rows x canvas, heads x width)."""
    parts = []
    for row, (first, stored) in enumerate(case.lengths):
        keys, values = of.cache[:, int(of.slots[row]), :, first : stored + case.canvas].float()
        out = functional.scaled_dot_product_attention(
            of.query[row : row + 1].float().cpu(),
            keys[None].cpu(),
            values[None].cpu(),
            scale=1.0,
            enable_gqa=True,
        )
        parts.append(out[0].transpose(0, 1).flatten(1))
    return torch.cat(parts)


def compared(case: AttentionCase, device: torch.device = CPU) -> dict[str, Any]:
    """What the kernels give beside what is expected.

    Returns:
        «error»: the largest difference between numbers; «alone»: whether each row has the same
        bits without the others, «again»: whether all have a second time; «nan»:
        rows, heads and queries whose columns are no numbers; «type»: of what was given.

    """
    of = given(case, device)
    ours = of.attend(case)
    rows = len(case.lengths)
    by_row = ours.view(rows, case.canvas, -1)
    by_head = ours.view(rows, case.canvas, case.heads, case.width).isnan()
    assert bool((by_head.any(-1) == by_head.all(-1)).all())
    difference = (ours.float().cpu() - expected(case, of)).abs()
    return {
        "error": float(difference[~difference.isnan()].max()),
        "alone": case.repeated
        and all(_same(of.row(at).attend(case), by_row[at]) for at in range(rows)),
        "again": case.repeated and _same(of.attend(case), ours),
        "nan": by_head.all(-1).transpose(1, 2).nonzero().tolist(),
        "type": str(ours.dtype),
    }


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same bits; all that is no number counts as the same."""
    return torch.equal(one.nan_to_num(123.0), other.nan_to_num(123.0))


def run_attention(cases: Sequence[AttentionCase]) -> list[dict[str, Any]]:
    """Results of the cases in the interpreter, one for each; see `compared`."""
    found: list[dict[str, Any]] = apart.interpreted(
        "attention_cases", [asdict(case) for case in cases]
    )
    return found


def _multiply_bfloat16() -> None:
    """Teach the interpreter: it multiplies the bits of bfloat16 as if they were integers."""
    import numpy as np  # noqa: PLC0415 - only here
    import triton.language as tl  # noqa: PLC0415 - may be missing where this module is imported
    from triton.runtime import interpreter  # noqa: PLC0415 - as above

    known = interpreter.InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.view(np.uint16).astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return known(self, widened(a), widened(b), *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot


def _main() -> None:
    torch.set_num_threads(1)
    _multiply_bfloat16()
    cases = [
        AttentionCase(
            **{
                **case,
                "lengths": tuple(map(tuple, case["lengths"])),
                "blocks": case["blocks"] and tuple(case["blocks"]),
            }
        )
        for case in json.load(sys.stdin)
    ]
    json.dump([compared(case) for case in cases], sys.stdout)


if __name__ == "__main__":
    _main()
