"""How long `gemctl` takes, next to an interpreter that does nothing."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import rounds
from tests.bench.daemon import daemon_of
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.bench.setting import Setting

ROUNDS = 15
_MS = 1000.0
_CHECKOUT = Path(__file__).parents[2]
_HELP = "gemctl --help"
_STATUS = "gemctl status"
_PASS = "python -c pass"


async def measure(setting: Setting) -> Section:
    """`--help`, and `status` with a daemon running."""
    gemctl = _gemctl()
    commands = {
        _PASS: (sys.executable, "-c", "pass"),
        _HELP: (*gemctl, "--help"),
        _STATUS: (*gemctl, "status"),
    }
    section = Section(
        title="Command line",
        how=f"Milliseconds from start to end of the process, {ROUNDS} interleaved runs each, "
        f"files in the page cache; `gemctl` is "
        f"{'the installed script' if len(gemctl) == 1 else '`python -m gemd.cli`'}.",
        head=("command", "median ms", "min – max", f"of `{_PASS}`"),
    )
    async with daemon_of(setting) as daemon:
        taken = await rounds.interleave(
            {name: _timed(command, daemon.environ) for name, command in commands.items()},
            rounds=ROUNDS,
            pause=0.05,
        )
    section.how += f" {taken.remark()}"
    samples = {name: Samples(tuple(seconds)) for name, seconds in taken.results.items()}
    for name, sample in samples.items():
        ratio = f"{sample.median / samples[_PASS].median:.1f} ×"
        section.rows.append((f"`{name}`", *spread(sample, digits=0, scale=_MS), ratio))
    for name, bound in ((_HELP, 120), (_STATUS, 350)):
        section.checks.append(
            Check(
                f"`{name}`",
                samples[name].median * _MS,
                bound,
                at_least=False,
                unit=" ms",
                digits=0,
            )
        )
    return section


def _gemctl() -> tuple[str, ...]:
    script = Path(sys.executable).with_name("gemctl")
    return (str(script),) if script.exists() else (sys.executable, "-m", "gemd.cli")


def _timed(command: Sequence[str], environ: Mapping[str, str]) -> Callable[[int], Awaitable[float]]:
    async def turn(_number: int) -> float:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            cwd=_CHECKOUT,
        )
        _, said = await process.communicate()
        taken = time.monotonic() - began
        if process.returncode:
            words = said.decode(errors="replace").strip()
            raise RuntimeError(f"{command[-1]} ended with {process.returncode}: {words}")
        return taken

    return turn
