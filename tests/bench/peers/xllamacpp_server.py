"""xllamacpp's native server, called in its own process: no HTTP between it and the bench.

Sampling is as cheap as the server allows: one sampler that keeps the likeliest token.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import threading
import time
from typing import Any

import xllamacpp
from lines import Stream, serve

BATCH = 512


def start(given: argparse.Namespace, *, unified: bool) -> Any:
    """A server with eight slots; the cache is one for all of them, or split between them."""
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.n_ctx = given.context_tokens
    params.n_parallel = given.parallel
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given.threads
    params.kv_unified = unified
    params.no_perf = True
    params.verbosity = 0
    return xllamacpp.Server(params)


def complete(server: Any, prompt: list[int], tokens: int, stream: Stream) -> None:
    """One streamed answer."""

    def take(chunk: dict[str, Any]) -> bool:
        if chunk["choices"][0]["finish_reason"] is None:
            stream.append((time.monotonic(), 1))
        return False

    server.handle_completions(
        {
            "prompt": prompt,
            "n_predict": tokens,
            "samplers": ["top_k"],
            "top_k": 1,
            "stream": True,
            "cache_prompt": False,
        },
        take,
    )


def main() -> None:
    """Serve the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    given = parser.parse_args()
    servers = {
        "split": start(given, unified=False),
        "unified": start(given, unified=True),
    }

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        server, prompts = servers[request["variant"]], request["prompts"]
        streams: list[Stream] = [[] for _ in prompts]
        threads = [
            threading.Thread(target=complete, args=(server, prompt, request["tokens"], stream))
            for prompt, stream in zip(prompts, streams, strict=True)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"submitted": began, "streams": streams}

    serve(f"xllamacpp {importlib.metadata.version('xllamacpp')}", answer)


if __name__ == "__main__":
    main()
