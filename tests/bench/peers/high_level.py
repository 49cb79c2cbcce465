"""llama-cpp-python's own class: one request at a time, streamed."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lines import Stream, serve
from llama_cpp import Llama, __version__


def main() -> None:
    """Serve the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    llama = Llama(
        given.model,
        n_ctx=given.context_tokens,
        n_threads=given.threads,
        n_threads_batch=given.threads,
        verbose=False,
    )

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        (prompt,) = request["prompts"]
        began = time.monotonic()
        stream: Stream = []
        for chunk in llama.create_completion(
            prompt, max_tokens=request["tokens"], temperature=0, stream=True
        ):
            # The last chunk only says why it ended.
            if chunk["choices"][0]["finish_reason"] is None:
                stream.append((time.monotonic(), 1))
        return {"submitted": began, "streams": [stream]}

    serve(f"llama-cpp-python {__version__}", answer)


if __name__ == "__main__":
    main()
