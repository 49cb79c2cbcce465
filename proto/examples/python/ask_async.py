"""Several questions at once, decoded together, in an asyncio program.

python ask_async.py [MODEL]

The first answer that names Paris is enough: the others are cancelled.
"""

from __future__ import annotations

import asyncio
import sys

from gemd.client import AsyncClient, GemdClientError, GenerationOptions, Sampling, default_socket

QUESTIONS = (
    "What is the capital of France?",
    "Which city has the Eiffel tower?",
    "Tell me everything about the Louvre.",
)


async def names_paris(client: AsyncClient, question: str, model: str | None) -> str:
    """The question, once its answer has named Paris; a generation that is left is cancelled."""
    options = GenerationOptions(model=model, sampling=Sampling(max_tokens=200))
    async with client.chat(question, options, deadline=120) as answer:
        async for _ in answer:
            if "Paris" in answer.text_so_far:
                return question
    raise ValueError(f"no Paris in {answer.text_so_far!r}")


async def main(model: str | None = None) -> None:
    """Ask all, and take the first that succeeds."""
    async with AsyncClient(default_socket(), name="example-ask-async") as client:
        tasks = {asyncio.create_task(names_paris(client, each, model)) for each in QUESTIONS}
        try:
            for first in asyncio.as_completed(tasks):
                try:
                    print("Paris was named first in answer to:", await first)
                except ValueError:
                    continue
                break
            else:
                sys.exit("no answer has named Paris")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except GemdClientError as error:
        sys.exit("\n  try: ".join([f"{error} ({error.reason})", *error.advice]))
