"""What `gemctl engine` shows: the plan of an installation, its progress, verdicts, documents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gemd.cli.failures import CommandError, Exit
from gemd.cli.text import format_seconds
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gemd.cli.output import Output
    from gemd.cli.progress import Progress
    from gemd.engine.builds import Build
    from gemd.engine.builds.installers import Installer
    from gemd.engine.builds.installing import Notice
    from gemd.engine.builds.planning import Plan
    from gemd.engine.builds.verification import Verdict


_COMMIT_CHARACTERS = 14
"""Enough for «0c1e570-dirty»."""


def commit_shown(commit: str) -> str:
    """A commit as tables have it."""
    return commit[:_COMMIT_CHARACTERS] or "-"


def show_plan(
    output: Output, planned: Plan, installers: Sequence[Installer], engines_dir: Path
) -> None:
    """What would be done, what it costs, and what is missing for the rest."""
    output.note(f"the {planned.engine} engine for {planned.backend}, into {engines_dir}")
    for way in planned.ways:
        if way.obstacle:
            output.note(f"  not {way.kind}: {way.obstacle}")
            continue
        costs = [f"{human_bytes(way.disk_bytes)} of disk"]
        if way.minutes is not None:
            minutes = format_seconds(way.minutes * 60)
            jobs = way.environ["CMAKE_BUILD_PARALLEL_LEVEL"]
            costs.append(f"about {minutes} (compilers at once: {jobs})")
        output.note(f"  {way.kind}: {', '.join(costs)}")
        for step in way.steps:
            variables = [f"{name}={value!r}" for name, value in way.environ.items()]
            tool = "uv pip install" if installers and installers[0].is_uv else "pip install"
            options = [f"--index-url {step.index}"] if step.index else []
            options += [f"--extra-index-url {step.extra_index}"] if step.extra_index else []
            names = [line.partition(" ")[0] for line in step.requirements]
            output.note(f"    {' '.join([*variables, tool, *options, *names])}")
    if (planned.engine, planned.backend) == ("llama", "cpu"):
        output.note(
            "  a wheel is compiled for many processors; --from source makes the most of this one"
        )
    if (planned.engine, planned.backend) == ("diffusion", "cpu"):
        output.note("  on the processor DiffusionGemma is slow: for tests of gemd only")
    failed = [check for check in planned.checks if not check.passed]
    for check in failed:
        output.note(f"  to compile: {check.name} is needed: {check.needed}")
    for command in dict.fromkeys(command for check in failed for command in check.fix):
        output.note(f"    {command}")


def teller(
    progress: Progress, *, clock: Callable[[], float] = time.monotonic
) -> Callable[[Notice], None]:
    """Shows the steps of an installation: a bar while something counts, lines otherwise.

    Args:
        progress: Where.
        clock: Monotonic seconds.

    """
    began = clock()

    def tell(step: Notice) -> None:
        nonlocal began
        if not step.total:
            began = clock()
            progress.note(step.text)
            return
        left = None
        if 0 < step.current < step.total:
            elapsed = clock() - began
            left = elapsed / step.current * (step.total - step.current)
        progress.update(
            step.text,
            current=step.current,
            total=step.total,
            remaining=left,
            bytes_counted=step.phase == "fetch",
        )

    return tell


def report_verdicts(
    output: Output, found: Sequence[Build], verdicts: Sequence[Verdict], *, as_json: bool
) -> None:
    """The verdicts as data; fails if one of the builds did."""
    faults = [
        tuple(filter(None, (one.broken, *verdict.problems)))
        for one, verdict in zip(found, verdicts, strict=True)
    ]
    if as_json:
        output.document(
            {
                "verdicts": [
                    {
                        **build_document(one),
                        "passed": not fault,
                        "problems": list(fault),
                        "notes": list(verdict.notes),
                        "devices": list(verdict.trial.devices),
                        "commit": verdict.trial.commit,
                    }
                    for one, verdict, fault in zip(found, verdicts, faults, strict=True)
                ]
            }
        )
    else:
        output.table(
            ("build", "backend", "commit", "devices", "result"),
            [
                (
                    one.name,
                    one.backend,
                    commit_shown(verdict.trial.commit),
                    ", ".join(verdict.trial.devices) or "-",
                    "; ".join(fault or ("computes rightly", *verdict.notes)),
                )
                for one, verdict, fault in zip(found, verdicts, faults, strict=True)
            ],
        )
    failed = [one for one, fault in zip(found, faults, strict=True) if fault]
    if failed:
        raise CommandError(
            f"{', '.join(one.name for one in failed)} must not be used",
            Exit.PRECONDITION,
            why="; ".join(text for fault in faults for text in fault),
            advice=[_repair(one) for one in failed],
        )


def _repair(build: Build) -> str:
    """What replaces a build that failed, or removes one that an installation would not replace."""
    from gemd.engine.builds import install_command
    from gemd.engine.builds.build import PINNED, folder_name, python_tag

    version = PINNED[build.engine]
    if build.path is None:
        options = "--force-reinstall --no-deps --no-cache-dir"
        return f"pip install {options} llama-cpp-python=={version}"
    if build.name != folder_name(build.engine, build.backend, version, python_tag()):
        # Such as one for an earlier version of gemd or of Python.
        return f"gemctl engine remove {build.name}"
    return f"{install_command(build.engine, build.backend)} --force"


def build_document(build: Build) -> dict[str, Any]:
    """A build as `--json` prints it."""
    from gemd.engine.builds.build import record_of

    content = record_of(build)
    del content["layout"]
    return {
        "name": build.name,
        **content,
        "path": str(build.path) if build.path else "",
        "broken": build.broken,
    }
