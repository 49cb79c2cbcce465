"""Rows of the diffusion engine's self-test: what its report says, and what mends it. Pure.

What a row ends with follows from what the engine does at a load: it checks each path's layers
against the reference and leaves out a path that is wrong or fails, so such a path is a warning. A
path that passes that check and is wrong all the same would be used, and one that takes the process
along would take a worker along: these have failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import Diagnosis, Result, conclude, failure, warning
from gemd.engine.builds.choice import install_command
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from gemd.doctor.diagnosis import Finding
    from gemd.engine.builds.build import Build
    from gemd.engine.builds.selftest import PathReport, Report

REFERENCE: Final = "reference"
_GPU: Final = "cuda"
_LIBRARIES: Final = ("torch", "transformers", "triton")


@dataclass(frozen=True, slots=True)
class _Case:
    """A report and where it was made."""

    report: Report
    build: Build
    usable: Collection[str]

    @property
    def on_gpu(self) -> bool:
        """Whether it was made on a GPU, or was to be."""
        return bool(self.report.device.get("kind") == _GPU)

    @property
    def again(self) -> str:
        """What puts another build in the place of this one."""
        backend = _GPU if _GPU in self.usable else self.build.backend
        force = "" if self.build.path is None else " --force"
        return install_command("diffusion", backend) + force


def rows_of(report: Report, build: Build, usable: Collection[str]) -> tuple[Diagnosis, ...]:
    """One row for the software, the device, the tiny model, each path, and several at a time.

    Args:
        report: Of the self-test; it may end early.
        build: That was tried.
        usable: Backends that the GPUs of this machine can run.

    """
    case = _Case(report, build, usable)
    return tuple(_rows(case))


def _rows(case: _Case) -> Iterator[Diagnosis]:
    report = case.report
    if report.problem:
        broken = failure(f"the self-test did not get to its end: {report.problem}", case.again)
        yield conclude("self-test", [broken], facts="")
    if report.software:
        yield conclude("software", _software(case), facts=_versions(report.software))
    if report.device:
        yield conclude("device", _device(case), facts=_described(case))
    if report.checkpoint:
        yield conclude("checkpoint", _checkpoint(case), facts=_loaded(report.checkpoint))
    for path in report.paths:
        yield _path(path, case)
    if any(path.together for path in report.paths):
        yield _batch(case)


def _software(case: _Case) -> Iterator[Finding]:
    problem, missing = case.report.software.get("problem"), case.report.software.get("missing")
    if missing:
        yield failure(f"{missing} is not installed", case.again)
    elif problem:
        yield failure(f"the engine cannot be imported: {problem}", case.again)


def _versions(software: Mapping[str, str]) -> str:
    named = [f"{name} {software[name]}" for name in _LIBRARIES if software.get(name)]
    if software.get("torch"):
        named.append(f"CUDA {software['cuda']}" if software.get("cuda") else "no CUDA")
    return ", ".join(named)


def _device(case: _Case) -> Iterator[Finding]:
    device = case.report.device
    if problem := device.get("problem"):
        advice = device.get("advice") or [case.again, "gemctl doctor gpu-driver"]
        yield failure(str(problem), *(_whole(command, case) for command in advice))
    elif not case.on_gpu and _GPU in case.usable:
        why = "" if case.report.software.get("cuda") else ": this torch has no CUDA"
        # Nothing but the setting engine_backend keeps a worker from a GPU that can be used.
        auto = "GEMD_ENGINE_BACKEND=auto gemctl doctor --engine diffusion"
        yield warning(f"the GPU of this machine is not used{why}", auto, case.again)


def _whole(command: str, case: _Case) -> str:
    """The engine does not know which build it is: its advice to install one is made exact."""
    return case.again if command.startswith("gemctl engine install") else command


def _described(case: _Case) -> str:
    device = case.report.device
    words = [str(device.get("name") or "")]
    if capability := device.get("capability"):
        words.append(f"compute capability {capability}")
    free, total = device.get("free_bytes"), device.get("total_bytes")
    if isinstance(free, int) and isinstance(total, int):
        words.append(f"{human_bytes(free)} of {human_bytes(total)} free")
    if case.build.backend == _GPU and _GPU not in case.usable:
        words.append(f"no GPU is here that {_GPU} can run on")
    return ", ".join(word for word in words if word)


def _checkpoint(case: _Case) -> Iterator[Finding]:
    told = case.report.checkpoint
    problem = told.get("problem")
    if problem and told.get("out_of_memory"):
        yield failure(f"there was no memory for it: {problem}", *_for_memory(case))
    elif problem and told.get("died"):
        yield failure(f"the model cannot be loaded: {problem}", *_for_hardware(case))
    elif problem:
        reinstall = "pip install --force-reinstall gemd"
        yield failure(f"the tiny model cannot be loaded: {problem}", reinstall)


def _loaded(told: Mapping[str, object]) -> str:
    parameters = told.get("parameters")
    if not isinstance(parameters, int):
        return ""
    millions = parameters / 1e6
    return (
        f"every tensor of a tiny model of {millions:.1f} million parameters is in its place, "
        f"{told.get('packed_modules')} modules packed ({told.get('layout')})"
    )


def _path(path: PathReport, case: _Case) -> Diagnosis:
    if path.obstacle:
        if case.on_gpu:
            slower = warning(f"{path.obstacle}: a slower path is taken", case.again)
            return conclude(path.name, [slower], facts="")
        return Diagnosis(path.name, Result.SKIPPED, path.obstacle)
    return conclude(path.name, _path_findings(path, case), facts=_figures(path))


def _path_findings(path: PathReport, case: _Case) -> Iterator[Finding]:
    # The reference is what others are checked against: without it there is no path.
    spared = warning if path.name != REFERENCE else failure
    if not _within(path.layer_error, path.layer_bound):
        yield spared(
            f"a layer's numbers are {_off(path.layer_error)}, and {path.layer_bound:g} is "
            "allowed: the engine leaves this path out",
            *_for_hardware(case),
        )
    if not _within(path.step_error, path.step_bound):
        yield failure(
            f"layer by layer it is right, and a step's logits are {_off(path.step_error)}, where "
            f"{path.step_bound:g} is allowed",
            *_for_hardware(case),
        )
    if path.right < path.questions:
        asked = ""
        if path.wrong is not None:
            question, answer = path.wrong
            asked = f", such as {answer!r} to {question!r}"
        yield failure(
            f"{path.questions - path.right} of {path.questions} answers are wrong{asked}",
            *_for_hardware(case),
        )
    if path.problem and path.out_of_memory:
        yield failure(f"there was no memory to try it: {path.problem}", *_for_memory(case))
    elif path.problem and path.died:
        yield failure(f"it would end a worker: {path.problem}", *_for_hardware(case))
    elif path.problem:
        left_out = "" if path.name == REFERENCE else ": the engine leaves this path out"
        yield spared(f"it fails with {path.problem}{left_out}", *_for_hardware(case))


def _within(error: float | None, bound: float) -> bool:
    return error is None or error <= bound


def _off(error: float | None) -> str:
    assert error is not None
    if error == float("inf"):
        return "no numbers"
    return f"off by {error:.2g} of the reference's"


def _figures(path: PathReport) -> str:
    """What was measured, apart from what is wrong."""
    words = []
    if path.questions and path.right == path.questions:
        words.append(f"{path.right} of {path.questions} answers")
    if path.layer_error is not None and _within(path.layer_error, path.layer_bound):
        words.append(f"layers off by {path.layer_error:.2g} at most")
    if path.step_error is not None and _within(path.step_error, path.step_bound):
        words.append(f"a step's logits by {path.step_error:.2g}")
    if path.step_ms is not None:
        words.append(f"{path.step_ms:.1f} ms a step")
    return ", ".join(words)


def _batch(case: _Case) -> Diagnosis:
    """Whether several answers at a time are what each is alone."""
    tried = [path for path in case.report.paths if path.together]
    most = max(path.together for path in tried)
    findings = [
        failure(
            f"{path.questions - path.same_together} of {path.questions} answers on {path.name} are "
            f"others {path.together} at a time than one by one",
            *_for_hardware(case),
        )
        for path in tried
        if path.same_together < path.questions
    ]
    sound = [path.name for path in tried if path.same_together == path.questions]
    facts = (
        f"{most} answers at a time come out as one by one on {', '.join(sound)}" if sound else ""
    )
    return conclude("batch", findings, facts=facts)


def _for_memory(case: _Case) -> tuple[str, ...]:
    return ("gemctl yield", f"gemctl doctor {'gpu-memory' if case.on_gpu else 'memory'}")


def _for_hardware(case: _Case) -> tuple[str, ...]:
    """For numbers that are wrong and processes that die: another build, or another driver."""
    return (case.again, "gemctl doctor gpu-driver") if case.on_gpu else (case.again,)
