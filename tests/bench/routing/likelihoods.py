"""What the small model made of the weak model's answers, kept so that no model is needed.

``python -m tests.bench.routing.likelihoods FILE …`` makes the kept file of those that
`tests.bench.routing.scoring` wrote.
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from gemd.routing.risk import Likelihood
from tests.bench.routing.scoring import read_scores, restored

KEPT: Final = Path(__file__).with_name("data") / "likelihoods.jsonl.gz"
_DIGITS: Final = 4


def read_likelihoods(path: Path = KEPT) -> dict[tuple[str, str], Likelihood]:
    """By set and key of the outcome."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {(row.pop("set"), row.pop("key")): Likelihood(**row) for row in rows}


def main() -> int:
    """Make the kept file."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing.likelihoods")
    parser.add_argument("scored", nargs="+", type=Path, help="files of token scores")
    scored = {
        place: tokens
        for path in parser.parse_args().scored
        for place, tokens in read_scores(path).items()
        if tokens
    }
    lines = "".join(
        json.dumps({"set": name, "key": key, **_rounded(Likelihood.of(restored(tokens)))}) + "\n"
        for (name, key), tokens in sorted(scored.items())
    )
    # Without a time in its head the same rows are the same file.
    KEPT.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
    return 0


def _rounded(likelihood: Likelihood) -> dict[str, Any]:
    return {name: round(value, _DIGITS) for name, value in asdict(likelihood).items()}


if __name__ == "__main__":
    raise SystemExit(main())
