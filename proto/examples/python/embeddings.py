"""The texts that are nearest to a question.

python embeddings.py [QUESTION] [MODEL]
"""

from __future__ import annotations

import sys

from gemd.client import Client, GemdClientError, default_socket

TEXTS = (
    "The cat sleeps on the sofa.",
    "SELECT name FROM users WHERE id = 7;",
    "Stocks fell on Friday after the bank's report.",
)


def main(question: str = "A kitten is lying on the couch.", model: str = "smollm2-135m") -> None:
    """Print the texts with their similarity, nearest first.

    All texts go into one call. Vectors have length 1, so that their product is the cosine; those
    of different models cannot be compared.
    """
    with Client(default_socket(), name="example-embeddings") as client:
        wanted, *vectors = client.embed([question, *TEXTS], model=model).vectors
    near = [sum(a * b for a, b in zip(wanted, each, strict=True)) for each in vectors]
    for similarity, text in sorted(zip(near, TEXTS, strict=True), reverse=True):
        print(f"{similarity:.3f}  {text}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GemdClientError as error:
        sys.exit("\n  try: ".join([f"{error} ({error.reason})", *error.advice]))
