"""What `tests.bench.diffusion_gpu` is to measure, and its tables."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tests.bench.diffusion_measure import Times
from tests.bench.report import Check, Section

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.diffusion_measure import Floor
    from tests.bench.diffusion_model import Shape

Figures = dict[str, dict[int, Times]]
"""By what was timed and by canvases."""


@dataclass
class Run:
    """What is measured, and how.

    Attributes:
        shape: Of the model.
        device: Where.
        dtype: Of all that is not packed.
        canvases: Numbers of them.
        repeats: Of each timing.
        prefix: Tokens before each canvas.
        tune_seconds: For tiles.
        bandwidth: Of a copy, bytes a second.
        out: Markdown, rewritten as figures come; the figures go beside it as JSON.
        steps: Times of a denoising step so far.
        experts: Times of the experts alone so far.
        floors: What a step cannot do without, by canvases.
        sections: Other tables so far.
        data: The same, for programs.

    """

    shape: Shape
    device: torch.device
    dtype: torch.dtype
    canvases: tuple[int, ...]
    repeats: int
    prefix: int
    tune_seconds: float
    out: Path | None = None
    bandwidth: float = 0.0
    steps: Figures = field(default_factory=dict)
    experts: Figures = field(default_factory=dict)
    floors: dict[int, Floor] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether there are CUDA graphs and memory figures."""
        return self.device.type == "cuda"

    def floor_ms(self, size: float) -> float:
        """How long so many bytes take at the bandwidth of a copy."""
        return 1000 * size / self.bandwidth

    def table(self, title: str, how: str, *head: str) -> Section:
        """A new section."""
        section = Section(title, how, head)
        self.sections.append(section)
        return section


def machine(run: Run) -> list[str]:
    """Lines about GPU and versions."""
    import transformers  # noqa: PLC0415 - slow to import

    try:
        import triton  # noqa: PLC0415 - may be missing

        compiler = f"triton {triton.__version__}"
    except ModuleNotFoundError:
        compiler = "no triton"
    name = platform.machine()
    if run.on_gpu:
        properties = torch.cuda.get_device_properties(run.device)
        name = (
            f"{properties.name}, {properties.total_memory / 1e9:.1f} GB, compute capability "
            f"{properties.major}.{properties.minor}"
        )
    return [
        name,
        (
            f"Python {platform.python_version()}, torch {torch.__version__}, "
            f"transformers {transformers.__version__}, {compiler}"
        ),
        f"a copy moves {run.bandwidth / 1e9:.0f} GB/s, bytes read and written counted",
    ]


def step_tables(run: Run) -> list[Section]:
    """A step, and the experts alone; the bounds that the project has set itself."""
    steps, experts = run.steps, run.experts
    layers = run.data.get("bf16_layers", run.shape.layers)
    fewer = (
        f" bf16: {layers} layers, scaled to {run.shape.layers}."
        if layers < run.shape.layers
        else ""
    )
    how = (
        f"Milliseconds, medians of at most {run.repeats}, with {run.prefix} tokens before each "
        f"canvas of {run.shape.canvas}. The floor is the bytes that must move at a copy's "
        f"bandwidth.{fewer}"
    )
    bytes_ = {count: (floor.total, floor.experts) for count, floor in run.floors.items()}
    whole = {count: run.floor_ms(both[0]) for count, both in bytes_.items()}
    part = {count: run.floor_ms(both[1]) for count, both in bytes_.items()}
    section = _table(run, "A denoising step", how, steps, whole)
    alone = _table(run, "Experts of all layers", f"{how} Routing is random.", experts, part)
    ours = steps.get("triton", {}).get(1)
    theirs = steps.get("transformers, bf16", {}).get(1)
    if ours is not None:
        section.checks.append(
            Check("triton / floor, one canvas", ours.median / whole[1], 1.5, at_least=False)
        )
    if ours is not None and theirs is not None:
        ratio = theirs.median / ours.median
        section.checks.append(Check("transformers / triton, one canvas", ratio, 2, at_least=True))
    run.data["floors"] = {count: asdict(floor) for count, floor in run.floors.items()}
    return [section, alone]


def part_table(run: Run, parts: Figures) -> None:
    """What a recorded step consists of."""
    how = f"Milliseconds, medians of at most {run.repeats}; each recorded and replayed by itself."
    section = run.table("Parts of a step", how, "", *map(_canvases, run.canvases))
    for name, by_count in parts.items():
        cells = (by_count.get(count) for count in run.canvases)
        section.rows.append(
            (name, *("failed" if cell is None else f"{cell.median:.2f}" for cell in cells))
        )


def _table(
    run: Run,
    title: str,
    how: str,
    figures: Figures,
    floor: dict[int, float],
) -> Section:
    section = Section(title, how, ("", *map(_canvases, run.canvases)))
    section.rows.append(("floor", *(f"{floor[count]:.2f}" for count in run.canvases)))
    for name, by_count in figures.items():
        cells = []
        for count in run.canvases:
            times = by_count.get(count)
            cells.append(
                f"{times.median:.2f} ({times.median / floor[count]:.2f} x floor)"
                if times is not None
                else "failed"
            )
        section.rows.append((name, *cells))
    run.data[title] = {
        name: {count: asdict(times) for count, times in by_count.items()}
        for name, by_count in figures.items()
    }
    return section


def _canvases(count: int) -> str:
    return f"{count} canvas" if count == 1 else f"{count} canvases"


def save(run: Run) -> list[Section]:
    """Write what there is so far, so that a run that is ended has not been for nothing.

    Returns:
        All tables.

    """
    sections = [*step_tables(run), *run.sections]
    if run.out is not None:
        run.out.write_text(text_of(run, sections), encoding="utf-8")
        document = json.dumps(run.data, indent=1, default=str)
        run.out.with_suffix(".json").write_text(document, encoding="utf-8")
    return sections


def text_of(run: Run, sections: list[Section]) -> str:
    """All of it as Markdown."""
    failures = [f"- failed: {text}" for text in run.data.get("failures", [])]
    preface = [f"- {line}" for line in run.data["machine"]] + failures
    text = "\n".join(["# DiffusionGemma on a GPU", "", *preface, ""])
    return text + "\n" + "\n".join(section.text() for section in sections)
