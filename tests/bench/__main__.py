"""``python -m tests.bench``: measure, print, and rewrite `RESULTS.md`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from gemd.hardware import physical_cores
from tests.bench import (
    canvas,
    channel,
    command_line,
    day,
    decode,
    first_token,
    idle,
    machine,
    nvfp4,
    parking,
    planning,
    prediction,
    pressure,
    pulling,
    quantize,
    sampling,
    second_turn,
    speculation,
)
from tests.bench.build_peers import build
from tests.bench.report import RESULTS, Section, record, rewritten
from tests.bench.setting import Peers, Setting
from tests.support.models import ensure_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MEASUREMENTS: dict[str, Callable[[Setting], Awaitable[Section]]] = {
    "one": decode.one_stream,
    "eight": decode.eight_streams,
    "first-token": first_token.measure,
    "second-turn": second_turn.measure,
    "speculation": speculation.measure,
    "idle": idle.measure,
    "sampling": sampling.measure,
    "command-line": command_line.measure,
    "channel": channel.measure,
    "pressure": pressure.measure,
    "parking": parking.measure,
    "planning": planning.measure,
    "pulling": pulling.measure,
    "prediction": prediction.measure,
    "canvas": canvas.measure,
    "quantize": quantize.measure,
    "day": day.measure,
    "nvfp4": nvfp4.measure,
}
MODEL = "smollm2-135m"
FEWEST_ROUNDS = 5
_LOOK_SECONDS = 5.0


def main() -> int:
    """Run what was asked for; 1 if a bound does not hold."""
    given = _arguments()
    peers = None if given.peers is None else Peers(given.peers.absolute())
    if given.build_peers:
        if peers is None:
            raise SystemExit("--build-peers needs --peers DIR")
        build(peers)
        return 0
    model = given.model or ensure_model(MODEL, Path(platformdirs.user_cache_dir("gemd-tests")))
    setting = Setting(
        model=model.absolute(), threads=given.threads, rounds=given.rounds, peers=peers
    )
    preface = [*machine.describe(threads=given.threads), machine.quiet(_LOOK_SECONDS)]
    name = MODEL if given.model is None else setting.model.name
    preface.append(f"model {name}, {setting.rounds} interleaved rounds")
    sections = []
    for measurement in given.only or MEASUREMENTS:
        sys.stderr.write(f"measuring {measurement} …\n")
        sections.append(asyncio.run(_section(MEASUREMENTS[measurement], setting)))
        sys.stdout.write(sections[-1].text() + "\n")
        sys.stdout.flush()
    if not given.only:
        known = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
        RESULTS.write_text(rewritten(known, preface, sections), encoding="utf-8")
    elif given.write:
        for section in sections:
            section.how += machine.signature(section.how, threads=given.threads)
        record(sections)
    return 0 if all(check.holds for section in sections for check in section.checks) else 1


async def _section(measure: Callable[[Setting], Awaitable[Section]], setting: Setting) -> Section:
    return await measure(setting)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=list(MEASUREMENTS),
        help="this measurement and no other, without rewriting RESULTS.md; may be repeated",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="with --only: put these sections into RESULTS.md, each with its machine and day",
    )
    parser.add_argument("--rounds", type=_rounds, default=7, help="at least 5; default 7")
    parser.add_argument(
        "--threads",
        type=int,
        default=physical_cores(),
        help="of every contender; default: physical cores",
    )
    parser.add_argument("--model", type=Path, help="another GGUF file")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="where xllamacpp and llama-server are"
    )
    parser.add_argument(
        "--build-peers", action="store_true", help="make what is missing there, and end"
    )
    return parser.parse_args()


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < FEWEST_ROUNDS:
        raise argparse.ArgumentTypeError(f"has to be at least {FEWEST_ROUNDS}")
    return rounds


if __name__ == "__main__":
    raise SystemExit(main())
