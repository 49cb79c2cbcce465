"""What one expert of DiffusionGemma costs on its way from bf16 to NVFP4."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from tests.bench import machine, rounds
from tests.bench.report import Check, Section, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.setting import Setting

SHAPES: Final = ((704, 2816), (704, 2816), (2816, 704))
"""Gate, up and down of the released model's experts."""
EXPERTS: Final = 3840
BOUND: Final = 2.0
"""Times as fast as the plain reference, at least."""
ERROR: Final = 0.088
_PAUSE_SECONDS: Final = 0.05


async def measure(setting: Setting) -> Section:
    """One expert packed in this process on one thread, in turn with the plain reference."""
    contenders, error = _contenders()

    def timed(action: Callable[[], object]) -> Callable[[int], Any]:
        async def turn(_: int) -> float:
            began = time.perf_counter()
            action()
            return time.perf_counter() - began

        return turn

    taken = await rounds.interleave(
        {name: timed(action) for name, action in contenders.items()},
        rounds=setting.rounds,
        pause=_PAUSE_SECONDS,
    )
    samples = {name: rounds.Samples(tuple(each)) for name, each in taken.results.items()}
    section = Section(
        title="Packing an expert to NVFP4",
        how=f"Gate, up and down of one expert with Gaussian weights, {setting.rounds} interleaved "
        "rounds on one thread, without reading and writing. The plain reference rounds to the "
        "nearest by a table, as the prototype did and as the tests' own does. "
        f"{taken.remark()} {machine.describe(threads=1)[0]}.",
        head=("way", "median ms", "min – max", f"minutes for {EXPERTS} experts"),
    )
    for name, sample in samples.items():
        minutes = f"{sample.median * EXPERTS / 60:.1f}"
        section.rows.append((name, *spread(sample, scale=1e3), minutes))
    plain, nearest, _ = samples.values()
    ratio = rounds.ratio(plain, nearest).median
    section.checks += [
        Check("to the nearest, against the reference", ratio, BOUND, at_least=True, unit=" x"),
        Check("relative error, four over six", error, ERROR, at_least=False, digits=4),
    ]
    return section


def _contenders() -> tuple[dict[str, Callable[[], object]], float]:
    """What takes turns, and the relative error of four over six on one of the matrices."""
    import torch  # noqa: PLC0415 - not for every measurement

    from gemd.worker.diffusion.compute.nvfp4 import dequantize  # noqa: PLC0415
    from gemd.worker.quantize.nvfp4.pack import factor_of, largest_of, pack  # noqa: PLC0415
    from tests.support.nvfp4 import global_scale_of, quantize_nvfp4  # noqa: PLC0415

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    matrices = [(torch.randn(*shape, generator=generator) * 0.02).bfloat16() for shape in SHAPES]
    groups = (matrices[:2], matrices[2:])

    def reference() -> None:
        for group in groups:
            scale = global_scale_of(*group)
            for matrix in group:
                quantize_nvfp4(matrix, scale)

    def packed(*, four_over_six: bool) -> Callable[[], object]:
        def do() -> None:
            for group in groups:
                factor = factor_of([largest_of(matrix) for matrix in group])
                for matrix in group:
                    pack(matrix, factor, four_over_six=four_over_six)

        return do

    one = matrices[0]
    factor = factor_of([largest_of(one)])
    made = pack(one, factor)
    again = dequantize(made.codes, made.scales, factor.reshape(1), dtype=torch.float32)
    return {
        "plain reference, to the nearest": reference,
        "gemd, to the nearest": packed(four_over_six=False),
        "gemd, four over six": packed(four_over_six=True),
    }, float((again - one).norm() / one.float().norm())
