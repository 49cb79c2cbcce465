"""``python -m tests.bench.diffusion_gpu``: denoising steps of DiffusionGemma on this GPU.

The real 26B-A4B shape with random weights, experts in NVFP4, on every path that runs here, against
transformers' bf16 model and against the bytes that must move. Needs torch, transformers and Triton,
and nothing else of gemd's environment.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from tests.bench import diffusion_measure as measure
from tests.bench.diffusion_model import REAL, ROOT, TINY, Model, make_model, open_packages
from tests.bench.diffusion_tables import (
    Figures,
    Run,
    machine,
    part_table,
    save,
    text_of,
)
from tests.bench.report import Check

if TYPE_CHECKING:
    from collections.abc import Callable

CANVASES: Final = (1, 2, 4, 8)
QUICK_CANVASES: Final = (1, 4)
PREFIX: Final = 512
"""Tokens before each canvas."""
PROFILE: Final = ROOT / "profiles" / "models" / "diffusiongemma-26b-a4b.toml"
_BF16_ROOM: Final = 6e9
"""Bytes beside the bf16 model's weights."""


def main() -> int:
    """Measure and write; 1 if a bound does not hold."""
    given = _arguments()
    open_packages()
    torch.set_num_threads(given.threads)
    run = _run(given)
    run.bandwidth = measure.copy_bandwidth(run.device)
    run.data["machine"] = machine(run)
    _packed(run, profile=given.profile)
    _free(run)
    if not given.no_bf16:
        _bf16(run)
    sections = save(run)
    sys.stdout.write(text_of(run, sections))
    return 0 if all(check.holds for section in sections for check in section.checks) else 1


def _run(given: argparse.Namespace) -> Run:
    if given.tiny:
        small = (1, 2)
        device, dtype = torch.device("cpu"), torch.float32
        return Run(TINY, device, dtype, small, 2, 40, given.tune_seconds, given.out)
    if not torch.cuda.is_available():
        raise SystemExit("this torch sees no GPU; --tiny runs a tiny model on the processor")
    canvases, repeats = (QUICK_CANVASES, 5) if given.quick else (CANVASES, 20)
    device = torch.device("cuda:0")
    bf16 = torch.bfloat16
    return Run(REAL, device, bf16, canvases, repeats, PREFIX, given.tune_seconds, given.out)


def _packed(run: Run, *, profile: bool) -> None:
    """All that is measured on the packed model."""
    from gemd.worker.diffusion.compute import available_paths, use_path  # noqa: PLC0415 - late

    if run.on_gpu:
        torch.cuda.reset_peak_memory_stats(run.device)
    model = _model(run, packed=True, layers=run.shape.layers)
    usable = [path.name for path in available_paths(run.device) if not path.obstacle]
    best = usable[-1]
    use_path(model.decoder, best)
    _tune(run, model)
    parts: Figures = {}
    for count in run.canvases:
        work = measure.step(model, count, run.prefix, plain=True)
        hit, most = measure.experts_hit(model, work)
        run.floors[count] = measure.floor_of(model, hit, run.prefix, count)
        run.data.setdefault("routing", {})[count] = {"hit": hit, "most": most}
    _numbers(run, model, usable)
    if run.on_gpu:
        # What the reference has unpacked is no part of a worker's peak.
        _free(run)
        torch.cuda.reset_peak_memory_stats(run.device)
    # The fastest path first: its peak is the worker's.
    for path in reversed(usable):
        use_path(model.decoder, path)
        for count in run.canvases:
            work = measure.step(model, count, run.prefix)
            given = measure.routed(model, count)
            _put(run, run.steps, path, count, work)
            _put(run, run.experts, path, count, measure.experts_pass(model, given))
            if path == "triton" and run.on_gpu:
                one_by_one = measure.step(model, count, run.prefix, plain=True)
                _put(run, run.steps, f"{path}, launch by launch", count, one_by_one)
                _put_graph(run, run.experts, f"{path}, recorded", count, model, given)
                for name, part in measure.parts(model, count, run.prefix).items():
                    _put(run, parts, name, count, measure.recorded(part))
        if path == best and run.on_gpu:
            _memory(run, model)
            part_table(run, parts)
        save(run)
    if profile and run.on_gpu:
        use_path(model.decoder, best)
        _profile(run, measure.step(model, 1, run.prefix))


def _model(run: Run, *, packed: bool, layers: int) -> Model:
    return make_model(
        run.shape,
        packed=packed,
        layers=layers,
        slots=max(run.canvases),
        context_tokens=2 * run.prefix,
        device=run.device,
        dtype=run.dtype,
    )


def _put(
    run: Run,
    figures: Figures,
    name: str,
    canvases: int,
    work: Callable[[], object],
) -> None:
    """Time it, if memory and compiler allow."""
    sys.stderr.write(f"{name}, {canvases} canvases …\n")
    try:
        figures.setdefault(name, {})[canvases] = measure.timed(work, run.device, run.repeats)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        said = str(error).splitlines()[0]
        run.data.setdefault("failures", []).append(f"{name}, {canvases} canvases: {said}")
        _free(run)


def _put_graph(
    run: Run,
    figures: Figures,
    name: str,
    canvases: int,
    model: Model,
    given: measure.Routed,
) -> None:
    try:
        replay = measure.recorded(measure.experts_pass(model, given))
    except RuntimeError as error:
        run.data.setdefault("failures", []).append(f"{name}: {str(error).splitlines()[0]}")
        return
    _put(run, figures, name, canvases, replay)


def _tune(run: Run, model: Model) -> None:
    from gemd.worker.diffusion.compute import tune  # noqa: PLC0415 - late

    tokens = [count * run.shape.canvas for count in run.canvases]
    found = tune(model.decoder, tokens=tokens, k=run.shape.k, budget=run.tune_seconds)
    head = ("kernel", "tokens of an expert", "tile", "µs", "µs at the start", "tried", "refused")
    how = f"A layer's launch on random routing, within {run.tune_seconds:g} s for all of them."
    section = run.table("Tiles", how, *head)
    for one in found:
        tile = one.tile
        said = f"{tile.rows} x {tile.tokens} x {tile.columns}, {tile.warps} warps"
        said += f", {tile.stages} stages, {tile.parts} parts"
        times = (f"{1000 * one.milliseconds:.0f}", f"{1000 * one.first:.0f}")
        section.rows.append(
            (one.kind, str(one.size), said, *times, str(one.tried), str(one.failed))
        )
    run.data["tiles"] = [asdict(one) for one in found]


def _numbers(run: Run, model: Model, usable: list[str]) -> None:
    from gemd.worker.diffusion.compute import use_path  # noqa: PLC0415 - late
    from gemd.worker.diffusion.compute.check import error_of  # noqa: PLC0415 - late

    how = f"A layer's experts against the reference, both in {run.dtype}, as norms."
    section = run.table("Numbers", how, "path", "relative error")
    for path in usable[1:]:
        use_path(model.decoder, path)
        error, bound = error_of(model.decoder)
        section.rows.append((path, f"{error:.2e}"))
        section.checks.append(
            Check(f"{path} against the reference", error, bound, at_least=False, digits=5)
        )
        run.data.setdefault("errors", {})[path] = error


def _memory(run: Run, model: Model) -> None:
    """The peak of this process on the GPU so far, against the plan."""
    from gemd.footprint.diffusion import (  # noqa: PLC0415 - late
        diffusion_shape,
        predict_diffusion,
    )

    free, total = torch.cuda.mem_get_info(run.device)
    reserved = torch.cuda.memory_reserved(run.device)
    # What is used beside the allocator's: context, libraries, kernels; and whoever else is here.
    beside = total - free - reserved
    peak = beside + torch.cuda.max_memory_reserved(run.device)
    architecture = tomllib.loads(PROFILE.read_text(encoding="utf-8"))["architecture"]
    shape = diffusion_shape(architecture, {"experts": "nvfp4"})
    planned = predict_diffusion(
        shape, context_tokens=2 * run.prefix, sequences=max(run.canvases)
    ).gpu.total
    how = f"{max(run.canvases)} canvases with {2 * run.prefix} tokens of context each, GB."
    section = run.table("Memory", how, "", "GB")
    rows = {
        "planned": planned,
        "peak, with what is beside the allocator": peak,
        "of it beside the allocator": beside,
        "most allocated": torch.cuda.max_memory_allocated(run.device),
        "weights": sum(t.nbytes for t in model.decoder.state_dict().values()),
    }
    section.rows = [(name, f"{size / 1e9:.2f}") for name, size in rows.items()]
    off = abs(planned - peak) / peak
    section.checks.append(Check("plan is off by", 100 * off, 5, at_least=False, unit=" %"))
    run.data["memory"] = rows


def _profile(run: Run, work: Callable[[], object]) -> None:
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 - only here

    work()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        work()
        measure.finish(run.device)
    events = sorted(seen.key_averages(), key=lambda one: -one.self_device_time_total)[:25]
    how = "Of one step with one canvas, by the time that they take on the GPU."
    section = run.table("Kernels", how, "kernel", "calls", "µs")
    for one in events:
        name = one.key.replace("|", "/")[:90]
        section.rows.append((name, str(one.count), f"{one.self_device_time_total:.0f}"))


def _bf16(run: Run) -> None:
    """Transformers' bf16 model, with fewer layers where they do not all fit."""
    layers = _layers_that_fit(run)
    if not layers:
        run.data.setdefault("failures", []).append("bf16: not even six layers fit")
        return
    model = _model(run, packed=False, layers=layers)
    run.data["bf16_layers"] = layers
    scale = run.shape.layers / layers
    name, ours = "transformers, bf16", "bf16 experts in gemd's step"
    for count in run.canvases:
        parts: Figures = {}
        own, own_head = measure.transformers_step(model, count, run.prefix)
        _put(run, parts, "whole", count, own)
        _put(run, parts, "head", count, own_head)
        _scale(parts, run.steps, name, count, scale)
        parts = {}
        _put(run, parts, "whole", count, measure.step(model, count, run.prefix))
        _put(run, parts, "head", count, measure.head_alone(model, count))
        _scale(parts, run.steps, ours, count, scale)
        parts = {}
        given = measure.routed(model, count)
        _put(run, parts, "whole", count, measure.experts_pass(model, given))
        _scale(parts, run.experts, name, count, scale)
        save(run)


def _scale(parts: Figures, figures: Figures, name: str, canvases: int, scale: float) -> None:
    """Let the layers that there are stand for those that had no room; the head is there once."""
    whole, head = parts["whole"].get(canvases), parts.get("head", {}).get(canvases)
    if whole is not None:
        figures.setdefault(name, {})[canvases] = measure.stretched(whole, head, scale)


def _layers_that_fit(run: Run) -> int:
    """In sixes, so that the kinds of attention keep their proportion."""
    if not run.on_gpu:
        return run.shape.layers
    shape = run.shape
    expert = 3 * shape.hidden * shape.inner
    layer = 2 * (shape.experts * expert + 3 * shape.hidden * shape.dense + 40_000_000)
    room = torch.cuda.mem_get_info(run.device)[0] - _BF16_ROOM
    room -= 2 * shape.vocabulary * shape.hidden
    return min(shape.layers, int(room // layer) // 6 * 6)


def _free(run: Run) -> None:
    gc.collect()
    if run.on_gpu:
        torch.cuda.empty_cache()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.diffusion_gpu", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="Markdown; the figures go beside it as JSON")
    parser.add_argument("--quick", action="store_true", help="1 and 4 canvases, fewer repeats")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the processor")
    parser.add_argument("--no-bf16", action="store_true", help="without transformers' bf16 model")
    parser.add_argument("--profile", action="store_true", help="the kernels of a step, by time")
    parser.add_argument("--tune-seconds", type=float, default=60.0, help="for tiles; default 60")
    parser.add_argument("--threads", type=int, default=1, help="of the processor; default 1")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
