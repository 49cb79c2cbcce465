"""Whether a build is what it should be, and computes: tried in a process of its own, then judged.

What is tried is what a worker would get: its interpreter, its environment, its search path.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemd.engine.builds.build import PINNED, too_old
from gemd.engine.builds.shelf import backends_in
from gemd.engine.builds.tiny_model import PROMPTS, STEPS, expected, tiny_model
from gemd.engine.spec import checkout_directory, worker_environment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LLAMA_COMMIT: Final = "0c1e570"
"""The llama.cpp commit that llama-cpp-python 0.3.36 was made for."""

_TIMEOUT_S: Final = 300.0
"""The first use of a GPU may compile kernels for minutes."""
_ALL_LAYERS: Final = 99
_TAIL_CHARACTERS: Final = 400
_REGISTERED: Final = {
    "cpu": "CPU",
    "cuda": "CUDA",
    "hip": "ROCm",
    "metal": "MTL",
    "vulkan": "Vulkan",
}
"""What ggml calls the backends that are compiled in."""
_ON_GPU: Final = frozenset({"gpu", "integrated"})
_TRIALS: Final = {"llama": "gemd.worker.llama.trial", "diffusion": "gemd.worker.torch_trial"}


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying a build.

    Attributes:
        file: Where the engine's package was imported from; empty if it was not.
        version: As the package says.
        commit: Of llama.cpp or torch, as the library says.
        ggml_version: As the library says.
        backends: Those that are compiled in.
        devices: What it would compute on, described.
        on_gpu: Whether one of them is a GPU.
        answers: What it computed; None if it came not that far.
        problem: What it failed with; empty if it did not.

    """

    file: str = ""
    version: str = ""
    commit: str = ""
    ggml_version: str = ""
    backends: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    on_gpu: bool = False
    answers: object = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial proves.

    Attributes:
        trial: It.
        problems: Why the build must not be used; none if it may.
        notes: What could not be tried here.

    """

    trial: Trial
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(
    overlay: Path | None,
    *,
    engine: str,
    backend: str,
    environ: Mapping[str, str],
    usable: Collection[str],
    python: str = sys.executable,
) -> Verdict:
    """Try a build and judge it.

    Args:
        overlay: Its directory; None for the one in the interpreter's environment.
        engine: ``llama`` or ``diffusion``.
        backend: What it is said to be for.
        environ: The environment that workers get a part of.
        usable: Backends that the GPUs of this machine can run.
        python: The interpreter.

    """
    trial = _try(overlay, engine=engine, backend=backend, environ=environ, python=python)
    libraries: frozenset[str] = frozenset()
    if engine == "llama" and trial.file:
        libraries = backends_in(Path(trial.file).parent / "lib")
    return judge(
        trial,
        engine=engine,
        backend=backend,
        overlay=overlay,
        usable=usable,
        libraries=libraries,
    )


def judge(
    trial: Trial,
    *,
    engine: str,
    backend: str,
    overlay: Path | None,
    usable: Collection[str],
    libraries: Collection[str] = (),
) -> Verdict:
    """What a trial proves.

    A build for a GPU that sees none is right on a machine that has none, and is only noted:
    it may be carried there, or the GPU may be plugged in later. On a machine whose GPU it
    should see it is a broken one.

    Args:
        trial: What came of it.
        engine: See `verify`.
        backend: See `verify`.
        overlay: See `verify`.
        usable: See `verify`.
        libraries: Backends that have a library in the build.

    """
    if trial.problem:
        return Verdict(trial, (trial.problem,), ())
    problems: list[str] = []
    notes: list[str] = []
    if overlay is not None and not Path(trial.file).is_relative_to(overlay):
        problems.append(f"{trial.file} was imported instead of the build in {overlay}")
    problems += _version_problems(trial, engine, bundled=overlay is None)
    if engine == "llama":
        _judge_commit(trial, problems, notes)
    # A build whose record is damaged may be for nobody knows what.
    if _REGISTERED.get(backend) not in trial.backends and backend not in libraries:
        there = ", ".join(trial.backends) or "nothing"
        problems.append(f"it was not built for {backend}: it has {there}")
    elif backend != "cpu" and not trial.on_gpu:
        _judge_blindness(trial, backend, usable, problems, notes)
    wanted = answers_of(engine)
    if trial.answers != wanted:
        problems.append(f"it computes wrongly: {trial.answers} instead of {wanted}")
    return Verdict(trial, tuple(problems), tuple(notes))


def _version_problems(trial: Trial, engine: str, *, bundled: bool) -> list[str]:
    """Torch in gemd's own environment may be newer than the one that gemd installs."""
    if bundled and engine == "diffusion":
        return [fault] if (fault := too_old("torch", trial.version)) else []
    if trial.version.partition("+")[0] != PINNED[engine]:
        return [f"it has version {trial.version}, and gemd needs {PINNED[engine]}"]
    return []


def _judge_commit(trial: Trial, problems: list[str], notes: list[str]) -> None:
    if not trial.commit or trial.commit == "unknown":
        notes.append("it does not say which llama.cpp commit it was built from")
    elif not trial.commit.startswith(LLAMA_COMMIT):
        problems.append(f"it was built from llama.cpp {trial.commit}, not {LLAMA_COMMIT}")


def _judge_blindness(
    trial: Trial, backend: str, usable: Collection[str], problems: list[str], notes: list[str]
) -> None:
    if backend in usable:
        devices = ", ".join(trial.devices) or "nothing"
        problems.append(f"it does not see the GPU of this machine, only {devices}")
    else:
        notes.append(f"no GPU is here that {backend} can run on: it was tried on the processor")


def answers_of(engine: str) -> list[list[int]]:
    """What a sound build answers."""
    if engine == "llama":
        return [expected(prompt) for prompt in PROMPTS]
    # The square of [[1, 2], [3, 4]].
    return [[7, 10], [15, 22]]


def _try(
    overlay: Path | None,
    *,
    engine: str,
    backend: str,
    environ: Mapping[str, str],
    python: str,
) -> Trial:
    # An abort of ggml would otherwise start a debugger.
    variables = {
        **worker_environment(environ, checkout=checkout_directory(), overlay=overlay),
        "GGML_NO_BACKTRACE": "1",
    }
    command = [python, "-P", "-m", _TRIALS[engine]]
    with tempfile.TemporaryDirectory(prefix="gemd-trial-") as folder:
        if engine == "llama":
            model = Path(folder) / "model.gguf"
            model.write_bytes(tiny_model())
            command += ["--model", str(model), "--prompts", json.dumps(PROMPTS)]
            command += ["--steps", str(STEPS)]
            command += ["--gpu-layers", "0" if backend == "cpu" else str(_ALL_LAYERS)]
        else:
            command += ["--backend", backend]
        try:
            done = subprocess.run(
                command,
                env=variables,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Trial(problem=f"it has not answered within {_TIMEOUT_S:.0f} s")
    return _read(done.returncode, done.stdout, done.stderr)


def _read(returncode: int, stdout: bytes, stderr: bytes) -> Trial:
    said = stderr.decode("utf-8", "replace").strip()[-_TAIL_CHARACTERS:]
    last = said.splitlines()[-1] if said else "it said nothing"
    if returncode < 0:
        how = _signal_name(-returncode)
        if how == "SIGILL":
            last = "it was compiled for another processor than this one"
        return Trial(problem=f"its process died of {how}: {last}")
    try:
        # A library may print before.
        report: Any = json.loads(stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        return Trial(
            file=str(report.get("file", "")),
            version=str(report.get("version", "")),
            commit=str(report.get("commit", "")),
            ggml_version=str(report.get("ggml_version", "")),
            backends=tuple(map(str, report.get("backends", ()))),
            devices=tuple(
                f"{each['name']} ({each['description']})" for each in report.get("devices", ())
            ),
            on_gpu=bool(report.get("gpu_offload"))
            and any(each["kind"] in _ON_GPU for each in report["devices"]),
            answers=report.get("answers"),
            problem=str(report.get("problem", "")),
        )
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        return Trial(problem=f"its process ended with {returncode}: {last}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
