"""What a small autoregressive model makes of the weak model's answers: `wire.Score`, for real.

``python -m tests.bench.routing.scoring gsm8k routerarena --into FILE`` appends one line for each
answer and goes on where it stopped; the evaluation reads `data/likelihoods.jsonl.gz`, which
`likelihoods` makes of that file.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemd import wire
from tests.bench.routing.sets import GSM8K, ROUTERARENA, load_set
from tests.support.engine_host import chat
from tests.support.llama import CHATML, Bench
from tests.support.models import CACHE, ensure_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.routing.sets import Outcome

MODEL: Final = "smollm2-135m"
CONTEXT_TOKENS: Final = 4096


def token_scores(bench: Bench, outcome: Outcome) -> tuple[wire.TokenLogprob, ...] | None:
    """Each token of the weak model's answer under the model; None if they do not fit."""
    request = wire.Score(
        request_id=outcome.key,
        prompt=chat(outcome.prompt),
        continuations=(outcome.response.strip(),),
    )
    bench.said.clear()
    # What an earlier answer left in the cache is attended to by nobody, and costs time.
    bench.forget()
    bench.run(request)
    said = bench.of(request).all(wire.Scores)
    return said[0].continuations[0].tokens if said else None


def stored(tokens: tuple[wire.TokenLogprob, ...]) -> list[list[float]]:
    """Log-probability, rank and entropy of each token, to four digits."""
    return [[round(t.logprob, 4), t.rank, round(t.entropy, 4)] for t in tokens]


def restored(rows: list[list[float]]) -> tuple[wire.TokenLogprob, ...]:
    """The tokens of `stored`, without what they are."""
    return tuple(
        wire.TokenLogprob(token=0, piece=b"", logprob=logprob, rank=int(rank), entropy=entropy)
        for logprob, rank, entropy in rows
    )


def read_scores(path: Path) -> dict[tuple[str, str], list[list[float]]]:
    """What has been scored: set and key -> tokens."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as lines:
        rows: Iterator[dict[str, Any]] = map(json.loads, lines)
        return {(row["set"], row["key"]): row["tokens"] for row in rows}


def main() -> int:
    """Score what is not in the file yet."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing.scoring")
    parser.add_argument("sets", nargs="+", choices=(GSM8K, ROUTERARENA))
    parser.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    bench = Bench(
        ensure_model(MODEL, CACHE),
        context_tokens=CONTEXT_TOKENS,
        max_sequences=1,
        chat_template=CHATML,
    )
    done = read_scores(given.into)
    with given.into.open("a", encoding="utf-8") as out:
        for name in given.sets:
            outcomes = load_set(name)
            # In an order of its own, so that what is there is a sample at any time.
            random.Random(1).shuffle(outcomes)
            for outcome in outcomes:
                if (name, outcome.key) in done:
                    continue
                tokens = token_scores(bench, outcome)
                line = {"set": name, "key": outcome.key, "tokens": stored(tokens or ())}
                out.write(json.dumps(line) + "\n")
                out.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
