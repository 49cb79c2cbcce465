"""The diffusion engine's self-test, in the environment that a worker would get.

`gemd.worker.diffusion.selftest` makes it; here it is started, and its report read.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemd.engine.builds.running import NotStartedError, ended_in_order, run
from gemd.engine.spec import checkout_directory, worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MODULE: Final = "gemd.worker.diffusion.selftest"
_TRYING: Final = "trying "


@dataclass(frozen=True, slots=True)
class PathReport:
    """What came of one way to compute.

    Attributes:
        name: Of the path.
        obstacle: Why it cannot run there; empty if it can.
        problem: What it failed with; empty if it did not.
        out_of_memory: Whether that was for want of memory.
        died: Whether its process, or the GPU for it, was lost to it.
        layer_error: Largest of a layer against the reference, relative; None if not known.
        layer_bound: What it has to keep.
        step_error: Of a step's logits against the reference in float32; None if not known.
        step_bound: What it has to keep.
        questions: How many were asked; 0 if it did not get there.
        right: How many were answered as they should.
        wrong: One that was not, with what was answered.
        step_ms: Milliseconds of a step; None if not known.
        together: Answers at a time of a second round; 0 if it did not get there.
        same_together: Questions that were answered there as they were one by one.

    """

    name: str
    obstacle: str = ""
    problem: str = ""
    out_of_memory: bool = False
    died: bool = False
    layer_error: float | None = None
    layer_bound: float = 0.0
    step_error: float | None = None
    step_bound: float = 0.0
    questions: int = 0
    right: int = 0
    wrong: tuple[str, str] | None = None
    step_ms: float | None = None
    together: int = 0
    same_together: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What the self-test found.

    Attributes:
        problem: What ended it before its time; empty if nothing did.
        software: Versions by library; ``problem`` and ``missing`` if one cannot be imported.
        device: ``kind``, ``name``, and what is wrong with it in ``problem`` and ``advice``.
        checkpoint: What the tiny model consists of; ``problem`` if it cannot be loaded.
        paths: Every way to compute, if it came so far.
        document: All of it as the self-test wrote it.

    """

    problem: str = ""
    software: Mapping[str, Any] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[PathReport, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


def run_selftest(
    overlay: Path | None,
    *,
    device: str,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
    python: str = sys.executable,
) -> Report:
    """Run it to its end.

    Args:
        overlay: Directory of the build; None for the one in the interpreter's environment.
        device: ``cpu`` or ``cuda``.
        environ: The environment that workers get a part of.
        tell: Called with the name of each part that begins.
        python: The interpreter.

    """
    said = io.BytesIO()

    def on_line(line: str) -> None:
        if line.startswith(_TRYING):
            tell(line.removeprefix(_TRYING))

    try:
        with ended_in_order():
            code = run(
                [python, "-P", "-m", _MODULE, "--device", device],
                environ=worker_environment(environ, checkout=checkout_directory(), overlay=overlay),
                cwd=Path("/"),
                log=said,
                on_line=on_line,
            )
    except NotStartedError as error:
        return Report(problem=f"it cannot be started: {error}")
    lines = said.getvalue().decode("utf-8", "replace").strip().splitlines()
    last = lines[-1] if lines else ""
    try:
        return read_report(json.loads(last))
    except ValueError:
        return Report(problem=f"it ended with {code}: {last or 'it said nothing'}")


def read_report(document: object) -> Report:
    """The report that a document is.

    Raises:
        ValueError: It is none.

    """
    if not isinstance(document, dict):
        raise ValueError("the document is no object")  # noqa: TRY004 - the content is wrong, not a call
    return Report(
        problem=document.get("problem", ""),
        software=document.get("software", {}),
        device=document.get("device", {}),
        checkpoint=document.get("checkpoint", {}),
        paths=tuple(_path(each) for each in document.get("paths", ())),
        document=document,
    )


def _path(told: Mapping[str, Any]) -> PathReport:
    wrong = next(iter(told.get("wrong", {}).items()), None)
    return PathReport(
        name=told["name"],
        obstacle=told.get("obstacle", ""),
        problem=told.get("problem", ""),
        out_of_memory=told.get("out_of_memory", False),
        died=told.get("died", False) or told.get("fatal", False),
        layer_error=_number(told, "layer_error"),
        layer_bound=told.get("layer_bound", 0.0),
        step_error=_number(told, "step_error"),
        step_bound=told.get("step_bound", 0.0),
        questions=told.get("questions", 0),
        right=told.get("right", 0),
        wrong=wrong,
        step_ms=told.get("step_ms"),
        together=told.get("together", 0),
        same_together=told.get("same_together", 0),
    )


def _number(told: Mapping[str, Any], name: str) -> float | None:
    """A figure; infinite where what was computed is no number, which JSON cannot say."""
    if name not in told:
        return None
    return float("inf") if told[name] is None else float(told[name])
