"""Fields of a document as JSON that always parses.

python document_to_json.py [FILE] [MODEL]

The API has no output constraints yet. Here the program writes the structure, and the model only
the values: each is continued from an open quote, and ends at the next one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gemd.client import Client, GemdClientError, GenerationOptions, Sampling, default_socket

DOCUMENT = """\
Invoice 2041. Bakery Rosen, Berlin. 12 loaves of rye bread. Total: 48 euros. Due on 3 May.
"""
FIELDS = ("seller", "city", "goods", "total", "due")


def extract(client: Client, document: str, model: str) -> dict[str, str]:
    """A value for every field; what was read before is in the worker's cache."""
    options = GenerationOptions(
        model=model,
        sampling=Sampling(temperature=0, max_tokens=30, stop=['"', "\n"]),
    )
    found: dict[str, str] = {}
    for name in FIELDS:
        begun = json.dumps(found, ensure_ascii=False)[:-1] + (", " if found else "")
        prompt = f'{document}\nThe same as JSON:\n{begun}"{name}": "'
        found[name] = client.generate(prompt, options, deadline=60).text().strip()
    return found


def main(file: str = "", model: str = "smollm2-135m") -> None:
    """Print one JSON document."""
    document = Path(file).read_text(encoding="utf-8") if file else DOCUMENT
    with Client(default_socket(), name="example-json") as client:
        print(json.dumps(extract(client, document, model), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GemdClientError as error:
        sys.exit("\n  try: ".join([f"{error} ({error.reason})", *error.advice]))
