"""The command: prints one JSON document, and on stderr what it is at."""

from __future__ import annotations

import argparse
import json
import sys

from gemd.worker.diffusion.selftest.watching import selftest


def main() -> None:
    """Try every way to compute."""
    parser = argparse.ArgumentParser(
        prog="gemd.worker.diffusion.selftest",
        description="Try every way to compute on a tiny model; prints one JSON document.",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="by default the GPU, if torch sees one"
    )
    arguments = parser.parse_args()
    report = selftest(arguments.device, tell=lambda part: _say(f"trying {part}"))
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
