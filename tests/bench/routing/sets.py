"""The public outcome sets: what a weak and a strong model made of the same prompts."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY: Final = Path(
    os.environ.get("GEMD_ROUTING_SETS") or Path(__file__).parents[4] / "shared" / "routing-eval"
)
"""Where the sets are, unless the caller says otherwise; a folder beside the checkout."""
SAMPLE: Final = Path(__file__).with_name("data") / "routerarena-sample.jsonl.gz"
"""A sample of RouterArena (Apache-2.0) that is always there."""

GSM8K: Final = "gsm8k"
MMLU: Final = "mmlu"
ROUTERARENA: Final = "routerarena"
MT_BENCH: Final = "mt-bench"
FILES: Final[Mapping[str, str]] = {
    GSM8K: "gsm8k.jsonl.gz",
    MMLU: "mmlu.jsonl.gz",
    ROUTERARENA: "routerarena-half.jsonl.gz",
    MT_BENCH: "mt-bench.jsonl.gz",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One prompt and what became of it.

    Attributes:
        key: Its place in its set, or its id.
        prompt: As the models got it.
        weak: How good the weak model's answer is, 0 to 1.
        strong: How good the strong model's answer is, 0 to 1.
        bad: Whether the weak model's answer will not do: it is wrong, or judged more than a
            point of ten below the strong model's.
        response: The weak model's answer; "" where the set has none.

    """

    key: str
    prompt: str
    weak: float
    strong: float
    bad: bool
    response: str = ""


def load_set(name: str, directory: Path = DIRECTORY) -> list[Outcome]:
    """A set, in the order of its file.

    Raises:
        FileNotFoundError: It is not there.

    """
    return read_outcomes(directory / FILES[name])


def read_outcomes(path: Path) -> list[Outcome]:
    """The rows of a file of gzipped JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [_outcome(number, json.loads(line)) for number, line in enumerate(lines)]


def _outcome(number: int, row: Mapping[str, Any]) -> Outcome:
    key = str(row.get("id", number))
    if "weak_score" in row:
        weak, strong = float(row["weak_score"]), float(row["strong_score"])
        bad = weak < strong - 1
        return Outcome(key, row["prompt"], weak / 10, strong / 10, bad)
    return Outcome(
        key,
        row["prompt"],
        float(row["weak_ok"]),
        float(row["strong_ok"]),
        not row["weak_ok"],
        row.get("weak_response", ""),
    )
