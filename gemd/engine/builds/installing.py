"""Installing an engine build: each way in turn until one gives a build that passes its trial.

The build that works stays until another one has been verified. What the compiler said is kept.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.engine.builds.build import (
    PINNED,
    Build,
    folder_name,
    native_flags,
    python_tag,
    record_of,
)
from gemd.engine.builds.folder import (
    discard,
    log_file,
    only_writer,
    publish,
    unwritable,
    workplace,
)
from gemd.engine.builds.installers import environment
from gemd.engine.builds.running import (
    NotStartedError,
    bytes_in,
    ended_in_order,
    run,
    steps_in,
)
from gemd.engine.builds.verification import Verdict, verify
from gemd.errors import EngineMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from gemd.engine.builds import recipes
    from gemd.engine.builds.facts import Facts
    from gemd.engine.builds.installers import Installer
    from gemd.engine.builds.recipes import Way

_KEPT_LINES: Final = 200
_ERROR: Final = re.compile(r"\berror(:| at )", re.IGNORECASE)
"""In a line of pip, of a compiler or of CMake."""
_LABEL: Final = re.compile(r"^(ERROR:|DEBUG)\s+")
"""What pip and uv put before a line."""
_CRASH: Final = "ERROR: Exception:"
"""What pip says before a traceback."""


@dataclass(frozen=True, slots=True)
class Notice:
    """How far an installation is.

    Attributes:
        phase: ``fetch``, ``compile``, ``verify`` or ``failed``.
        text: What is done, for people.
        current: Done of `total`: bytes of a download, steps of a compile.
        total: 0 if unknown.

    """

    phase: str
    text: str
    current: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Installed:
    """A build that was put in its place."""

    build: Build
    verdict: Verdict
    log: Path


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What every way of one installation shares."""

    engines_dir: Path
    name: str
    environ: Mapping[str, str]
    facts: Facts
    log: BinaryIO
    tell: Callable[[Notice], None]


class _FailedError(Exception):
    """A way did not lead to a build; the text says why."""


def install(
    engines_dir: Path,
    ways: Sequence[Way],
    installers: Sequence[Installer],
    *,
    environ: Mapping[str, str],
    facts: Facts,
    tell: Callable[[Notice], None],
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Installed:
    """Install a build by the first way that leads to one.

    Args:
        engines_dir: The folder of engines.
        ways: All of one engine and backend; those with an obstacle are passed over.
        installers: Tried in order where a wheel is fetched; only the first one compiles.
        environ: The user's environment.
        facts: The machine.
        tell: Called with every step.
        now: The time.

    Raises:
        EngineMissingError: No way led to a build that passes its trial.
        OperationConflictError: Another process installs.
        DiskFullError: The folder cannot be written.

    """
    first = ways[0]
    name = folder_name(first.engine, first.backend, PINNED[first.engine], python_tag())
    with ended_in_order(), only_writer(engines_dir), _writing(engines_dir):
        file = log_file(engines_dir, name)
        # Unbuffered, for who follows it.
        with file.open("wb", buffering=0) as log:
            attempt = _Attempt(engines_dir, name, environ, facts, log, tell)
            failures = []
            for way in ways:
                try:
                    build, verdict = _go(way, installers, attempt, now)
                except _FailedError as failure:
                    failures.append(f"{way.kind}: {failure}")
                    if not way.obstacle:
                        tell(Notice("failed", f"{way.kind}: {failure}"))
                else:
                    return Installed(build, verdict, file)
    raise _failed(ways, failures, file)


@contextlib.contextmanager
def _writing(engines_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(engines_dir, error) from error


def _failed(ways: Sequence[Way], failures: Sequence[str], log: Path) -> EngineMissingError:
    engine, backend = ways[0].engine, ways[0].backend
    fixes = dict.fromkeys(command for way in ways for command in way.fix)
    return EngineMissingError(
        f"the {engine} engine for {backend} could not be installed",
        why="; ".join(failures),
        advice=(f"less {shlex.quote(str(log))}", *fixes),
        metadata={"engine": engine, "backend": backend, "log": log},
    )


def _go(
    way: Way,
    installers: Sequence[Installer],
    attempt: _Attempt,
    now: Callable[[], dt.datetime],
) -> tuple[Build, Verdict]:
    if way.obstacle:
        raise _FailedError(way.obstacle)
    if not installers:
        raise _FailedError("there is neither pip nor uv")
    with workplace(attempt.engines_dir, attempt.name) as work:
        target = work / "target"
        _bring(way, installers if way.kind == "prebuilt" else installers[:1], work, attempt)
        attempt.tell(Notice("verify", "trying the build"))
        verdict = verify(
            target,
            engine=way.engine,
            backend=way.backend,
            environ=attempt.environ,
            usable=attempt.facts.backends,
        )
        if verdict.problems:
            raise _FailedError("; ".join(verdict.problems))
        place = attempt.engines_dir / attempt.name
        build = _described(way, verdict, place, attempt.facts, now())
        publish(target, place, record_of(build))
    return build, verdict


def _bring(way: Way, installers: Sequence[Installer], work: Path, attempt: _Attempt) -> None:
    """Everything the way is made of, in the directory `target`."""
    said: list[str] = []
    for installer in installers:
        # What another one has left there is not ours.
        shutil.rmtree(work / "target", ignore_errors=True)
        said = []
        for step in way.steps:
            code = _run_step(way, step, installer, work, attempt, said)
            if code:
                break
        else:
            return
    raise _FailedError(_last_words(said) or f"{installers[0].name} ended with {code}")


def _run_step(
    way: Way,
    step: recipes.Step,
    installer: Installer,
    work: Path,
    attempt: _Attempt,
    said: list[str],
) -> int:
    temporary, target = work / "tmp", work / "target"
    temporary.mkdir(exist_ok=True)
    requirements = work / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in step.requirements), encoding="utf-8")
    command = installer.arguments(step, target=target, requirements=requirements)
    variables = environment(attempt.environ, way.environ, temporary)
    shown = shlex.join([*(f"{key}={value}" for key, value in way.environ.items()), *command])
    # A path need not be UTF-8.
    attempt.log.write(f"$ {shown}\n".encode("utf-8", "surrogateescape"))
    names = ", ".join(line.partition(" ")[0] for line in step.requirements)
    phase = "compile" if step.compiled else "fetch"
    verb = "compiling" if step.compiled else "fetching"
    attempt.tell(Notice(phase, f"{verb} {names}"))

    def on_line(line: str) -> None:
        if line.strip():
            said.append(line.strip())
            del said[:-_KEPT_LINES]
        if (steps := steps_in(line)) is not None:
            attempt.tell(Notice("compile", "compiling llama.cpp", *steps))
        elif (steps := bytes_in(line)) is not None:
            attempt.tell(Notice("fetch", "downloading", *steps))

    try:
        return run(command, environ=variables, cwd=work, log=attempt.log, on_line=on_line)
    except NotStartedError as error:
        raise _FailedError(f"{installer.name} cannot be started: {error}") from error


def _last_words(lines: Sequence[str]) -> str:
    """The first error among the last lines, or the last line: what an installer died of."""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line == _CRASH:
            return lines[-1]
        if _ERROR.search(line):
            # CMake and uv say on the next line what is wrong.
            split = line.startswith("CMake Error") or following.startswith("cause:")
            whole = f"{line} {following}" if split else line
            return _LABEL.sub("", whole).strip()
    return lines[-1] if lines else ""


def _described(
    way: Way, verdict: Verdict, place: Path, facts: Facts, created: dt.datetime
) -> Build:
    trial = verdict.trial
    native = way.kind == "source" and "-DGGML_NATIVE=OFF" not in way.environ.get("CMAKE_ARGS", "")
    return Build(
        engine=way.engine,
        backend=way.backend,
        version=PINNED[way.engine],
        path=place,
        commit=trial.commit,
        ggml_version=trial.ggml_version,
        flags=way.environ.get("CMAKE_ARGS", ""),
        python_tag=python_tag(),
        cpu_flags=native_flags(facts.features) if native else frozenset(),
        created=created,
        installed=way.kind,
        devices=trial.devices,
    )


def remove(engines_dir: Path, build: Build) -> int:
    """Remove a build; the bytes that are free now.

    Raises:
        OperationConflictError: Another process installs or removes.
        DiskFullError: The folder cannot be written.

    """
    assert build.path is not None
    with only_writer(engines_dir), _writing(engines_dir):
        return discard(build.path) if build.path.exists() else 0
