"""``python -m tests.support.interpreted_head``: the head's kernels, interpreted, beside `Head`.

A process of its own, as in `interpreted`. Reads cases as JSON from stdin, prints one result for
each. On a GPU `compared` may be called where it is needed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch

from gemd.worker.diffusion.head import Head, Wish, reading_of
from tests.support import apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gemd.worker.diffusion.fused_head import FusedHead

Kind = Literal["grid", "normal", "flat", "one", "two", "equal", "nan", "inf"]

SOFTCAP: Final = 30.0
HIDDEN: Final = 24
CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class HeadCase:
    """What is read.

    Attributes:
        dtype: Name of the model's type.
        vocabulary: How many tokens.
        temperatures: Of each row.
        kind: Of logits. «grid»: sums that are exact in each type, so that their order does not
            matter, with many that are equal; «normal»: none of this; «flat»: all are 0; «one»,
            «two», «equal»: the marked tokens (see `marked`) stand out by twice the softcap, or by
            3; «nan», «inf»: as «grid», but for one position of the first row.
        many: Whether all positions are the same, and only draw with other numbers.
        alone: Whether the last row is read a second time without the others.
        canvas: Positions.
        seed: Of all numbers.

    """

    dtype: str
    vocabulary: int
    temperatures: tuple[float, ...] = (0.7,)
    kind: Kind = "grid"
    many: bool = False
    alone: bool = False
    canvas: int = 2
    seed: int = 0


BROKEN: Final = 1
"""The position that is no number in «nan» and «inf»."""


def marked(case: HeadCase) -> list[int]:
    """Tokens that stand out: one, or two in different slices, or four with neighbours."""
    last = case.vocabulary - 1
    if case.kind == "one":
        return [last // 2]
    return [last // 3, last] if case.kind == "two" else [7, 8, last - 1, last]


def run_head(cases: Sequence[HeadCase]) -> dict[str, Any]:
    """Results of the cases, and what does not belong to one.

    Returns:
        «cases»: see `compared`, one for each; «scratch», «places»: see there.

    """
    found: dict[str, Any] = apart.interpreted("interpreted_head", [asdict(case) for case in cases])
    return found


def _main() -> None:
    from gemd.worker.diffusion.compute.fused import interpreted  # noqa: PLC0415 - needs Triton

    torch.set_num_threads(1)
    assert interpreted()
    cases = [HeadCase(**{**case, "temperatures": tuple(case["temperatures"])}) for case in _given()]
    found = {
        "cases": [compared(case) for case in cases],
        "scratch": scratch(),
        "places": places(),
    }
    json.dump(found, sys.stdout)


def _given() -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = json.load(sys.stdin)
    return given


def compared(case: HeadCase, device: torch.device = CPU) -> dict[str, Any]:
    """What both ways of reading say.

    Returns:
        «ours», «theirs»: the columns of a reading, of shape (rows, 6, canvas); «sound»: by row
        whether our reading is; «soft»: by row, how far soft embeddings are apart, of norms, over
        positions that are numbers; «fixed»: whether fixed positions have the same bits in both;
        «alone»: whether the last row gave the same bits each time it was read; «misfit»: by row,
        how far a uniform lies outside of the part of the distribution that belongs to the token
        that it drew, of both readings; «chance»: by row, the least probability of a token drawn.

    """
    from gemd.worker.diffusion.fused_head import FusedHead  # noqa: PLC0415 - needs Triton

    table, hidden = (part.to(device) for part in _numbers(case))
    scale = torch.tensor(2.5, device=device).to(table.dtype)
    head = Head(table, scale, SOFTCAP, canvas_tokens=case.canvas)
    ends = _distributions(case, table, hidden)
    wishes = _wishes(case, ends)
    readings, theirs_soft = head.read(hidden, wishes)
    fused = FusedHead(table, scale, SOFTCAP, canvas_tokens=case.canvas, room=head.room)
    soft, columns = _read(fused, hidden, wishes)
    again = _read(fused, hidden[-1:], wishes[-1:]) if case.alone else (soft, columns)
    ours = [reading_of(each.cpu().numpy()) for each in columns]
    pairs = list(zip(theirs_soft.double().cpu(), soft.double().cpu(), strict=True))
    fixed = np.stack([wish.fixed for wish in wishes])
    fits = [
        (_fit(end, wish.uniforms, our.drawn), _fit(end, wish.uniforms, their.drawn))
        for end, wish, our, their in zip(ends, wishes, ours, readings, strict=True)
    ]
    return {
        "ours": [[column.tolist() for column in _columns(reading)] for reading in ours],
        "theirs": [[column.tolist() for column in _columns(reading)] for reading in readings],
        "sound": [reading.sound for reading in ours],
        "soft": [_apart(theirs, our) for theirs, our in pairs],
        "fixed": torch.equal(soft.cpu()[fixed], theirs_soft.cpu()[fixed]),
        "alone": torch.equal(again[0][-1], soft[-1]) and torch.equal(again[1][-1], columns[-1]),
        "misfit": [max(our[0], their[0]) for our, their in fits],
        "chance": [our[1] for our, _ in fits],
    }


def scratch() -> dict[str, Any]:
    """Of Gemma's vocabulary and a whole canvas in 16 bits.

    Returns:
        «apart»: whether one of the two large arrays lies behind the other; «own»: bytes of what
        lies neither in the room nor in the table.

    """
    from gemd.worker.diffusion.fused_head import FusedHead  # noqa: PLC0415 - needs Triton

    # Nothing is written, so nothing but addresses is taken up.
    table = torch.empty((1, 2816), dtype=torch.bfloat16).expand(262_144, -1)
    room = torch.empty((256, 262_144))
    fused = FusedHead(table, torch.tensor(1.0), 30.0, canvas_tokens=256, room=room)
    found = [value for value in vars(fused).values() if isinstance(value, torch.Tensor)]
    memory = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in found}
    for given in (table, room):
        del memory[given.untyped_storage().data_ptr()]
    logits, chances = fused._logits, fused._chances
    return {
        "apart": chances.data_ptr() - logits.data_ptr() == logits.numel() * 2,
        "own": sum(len(each) for each in memory.values()),
    }


def recorded(device: torch.device) -> bool:
    """Whether a graph of a reading gives the bits of one that is not recorded, on other input."""
    from gemd.worker.diffusion.fused_head import FusedHead  # noqa: PLC0415 - needs Triton

    first, second = (
        HeadCase("bfloat16", 9001, temperatures, canvas=16, seed=seed)
        for seed, temperatures in enumerate([(0.7, 0.5), (0.4, 0.9)])
    )
    table, hidden = (part.to(device) for part in _numbers(first))
    # Of the second, too: only what is read with the table changes.
    other = _numbers(second)[1].to(device)
    scale = torch.tensor(2.5, device=device).to(table.dtype)
    room = torch.empty((first.canvas, first.vocabulary), device=device)
    fused = FusedHead(table, scale, SOFTCAP, canvas_tokens=first.canvas, room=room)
    given, then = (
        _inputs(states, _wishes(case, _distributions(case, table, states)))
        for case, states in ((first, hidden), (second, other))
    )
    soft, columns = _outputs(hidden)
    fused.read(**given, soft=soft, columns=columns)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fused.read(**given, soft=soft, columns=columns)
    for name, to in given.items():
        to.copy_(then[name])
    graph.replay()
    expected_soft, expected_columns = _outputs(other)
    fused.read(**then, soft=expected_soft, columns=expected_columns)
    return torch.equal(soft, expected_soft) and torch.equal(columns, expected_columns)


def places() -> dict[str, int]:
    """Where a number falls in sums of which the first and the third add nothing."""
    from tests.support.head_places import place_of  # noqa: PLC0415 - needs Triton

    # As if a sum in parallel were rounded in another way where nothing is added.
    adds, sums = [0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 1.0, 1.1, 1.5, 2, 2, 2, 2]
    nan = [float("nan")] * 8
    return {
        "at zero": place_of(sums, adds, 0.0),
        "at an end": place_of(sums, adds, 1.0),
        "between": place_of(sums, adds, 1.05),
        "above all": place_of(sums, adds, 2.0),
        "none adds": place_of([0.0] * 8, [0.0] * 8, 0.0),
        "no numbers": place_of(nan, nan, float("nan")),
    }


def _numbers(case: HeadCase) -> tuple[torch.Tensor, torch.Tensor]:
    """The table and hidden states."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (len(case.temperatures), case.canvas, HIDDEN)
    dtype = getattr(torch, case.dtype)
    if case.kind == "normal":
        table = torch.randn(case.vocabulary, HIDDEN, generator=generator)
        return table.to(dtype), torch.randn(shape, generator=generator).to(dtype)
    table = torch.randint(-8, 9, (case.vocabulary, HIDDEN), generator=generator) / 8
    hidden = torch.randint(-8, 9, shape, generator=generator) / 8
    if case.kind in {"flat", "one", "two", "equal"}:
        # Logits are the first column; the others make embeddings differ.
        hidden[:] = 0
        table[:, 0] = 0
        if case.kind != "flat":
            hidden[..., 0] = 3 if case.kind == "equal" else 2 * SOFTCAP
            table[marked(case), 0] = 1
    if case.many:
        hidden[:] = hidden[:, :1].clone()
    if case.kind in {"nan", "inf"}:
        hidden[0, BROKEN, 1] = float(case.kind)
    return table.to(dtype), hidden.to(dtype)


def _wishes(case: HeadCase, distributions: NDArray[np.float64]) -> list[Wish]:
    rng = np.random.default_rng(case.seed)
    rows = len(case.temperatures)
    uniforms = rng.random((rows, case.canvas), dtype=np.float32)
    if case.many:
        for row in range(rows):
            _spread(uniforms[row], distributions[row, 0])
    fixed = rng.random((rows, case.canvas)) < (0 if case.many else 0.3)
    tokens = rng.integers(0, case.vocabulary, (rows, case.canvas))
    return [
        Wish(temperature, uniforms[row], fixed[row], tokens[row])
        for row, temperature in enumerate(case.temperatures)
    ]


ON_BORDERS: Final = slice(2, 5)
"""Numbers that are put where one token's part of the distribution ends, where `many` is asked."""


def _spread(uniforms: NDArray[np.float32], ends: NDArray[np.float64]) -> None:
    """Both ends of the range, and borders of some tokens and slices, among random numbers."""
    before_one = np.nextafter(np.float32(1), np.float32(0))
    borders = [ends[place] for place in (0, 4095, len(ends) // 2) if place < len(ends)]
    special = np.array([0, before_one, *borders], dtype=np.float32)
    uniforms[: len(special)] = np.minimum(special, before_one)
    assert len(special) <= ON_BORDERS.stop


def _distributions(
    case: HeadCase, table: torch.Tensor, hidden: torch.Tensor
) -> NDArray[np.float64]:
    """Cumulative, of logits as the model's type has them; shape (rows, canvas, vocabulary)."""
    logits = (hidden @ table.T).cpu().double()
    heat = torch.tensor(case.temperatures, dtype=torch.float64)[:, None, None]
    bent = (logits / SOFTCAP).tanh() * SOFTCAP / heat
    found: NDArray[np.float64] = bent.softmax(-1).cumsum(-1).numpy()
    return found


def _fit(
    ends: NDArray[np.float64], uniforms: NDArray[np.float32], drawn: NDArray[np.int64]
) -> tuple[float, float]:
    """See `compared`: the misfit, and the least chance."""
    at = np.arange(len(drawn))
    # A token that is none is told of by the tests; it must not end the others.
    tokens = np.clip(drawn, 0, ends.shape[1] - 1)
    end = ends[at, tokens]
    begin = np.where(tokens > 0, ends[at, tokens - 1], 0.0)
    return float(np.maximum(begin - uniforms, uniforms - end).max()), float((end - begin).min())


def _read(
    fused: FusedHead, hidden: torch.Tensor, wishes: Sequence[Wish]
) -> tuple[torch.Tensor, torch.Tensor]:
    soft, columns = _outputs(hidden)
    fused.read(**_inputs(hidden, wishes), soft=soft, columns=columns)
    return soft, columns


def _inputs(hidden: torch.Tensor, wishes: Sequence[Wish]) -> dict[str, torch.Tensor]:
    """What `FusedHead.read` reads."""
    arrays = {
        "temperatures": np.array([wish.temperature for wish in wishes], dtype=np.float32),
        "uniforms": np.stack([wish.uniforms for wish in wishes]),
        "fixed": np.stack([wish.fixed for wish in wishes]),
        "tokens": np.stack([wish.tokens for wish in wishes]),
    }
    there = {name: torch.from_numpy(array).to(hidden.device) for name, array in arrays.items()}
    return {"hidden": hidden, **there}


def _outputs(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft embeddings and columns that hold something else before."""
    columns = torch.full((len(hidden), 6, hidden.shape[1]), -7.0, device=hidden.device)
    return torch.full_like(hidden, -7), columns


def _columns(reading: Any) -> list[NDArray[Any]]:
    return [
        reading.likeliest,
        reading.drawn,
        reading.entropy,
        reading.raw_entropy,
        reading.confidence,
        reading.margin,
    ]


def _apart(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    whole = theirs.isfinite().all(-1)
    difference = (theirs[whole] - ours[whole]).norm()
    return float(difference / theirs[whole].norm().clamp(min=1e-30))


if __name__ == "__main__":
    _main()
