"""llama.cpp's own server, a process of its own, over HTTP on the loopback."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time
from typing import Any

from lines import Stream, serve

START_SECONDS = 60.0
BATCH = 512


def free_port() -> int:
    """A port nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def version(binary: str) -> str:
    """What the binary says it is."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version: (\S+)", said.stdout + said.stderr)
    return f"llama-server {found[1] if found else 'of unknown version'}"


def wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when the model is loaded."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise RuntimeError("llama-server did not start")


def complete(port: int, prompt: list[int], tokens: int, stream: Stream) -> None:
    """One streamed answer; server-sent events, one per token."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    request = {
        "prompt": prompt,
        "n_predict": tokens,
        "samplers": ["top_k"],
        "top_k": 1,
        "stream": True,
        "cache_prompt": False,
        "return_tokens": True,
    }
    connection.request("POST", "/completion", json.dumps(request))
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            now = time.monotonic()
            count = len(json.loads(line[6:])["tokens"])
            if count:
                stream.append((now, count))
    connection.close()


def main() -> None:
    """Serve the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    given = parser.parse_args()
    port = free_port()
    process = subprocess.Popen(
        [
            given.binary,
            *("--model", given.model),
            *("--ctx-size", str(given.context_tokens)),
            *("--parallel", str(given.parallel)),
            *("--threads", str(given.threads), "--threads-batch", str(given.threads)),
            *("--batch-size", str(BATCH), "--ubatch-size", str(BATCH)),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--log-disable", "--no-webui"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")},
    )

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        prompts = request["prompts"]
        streams: list[Stream] = [[] for _ in prompts]
        threads = [
            threading.Thread(target=complete, args=(port, prompt, request["tokens"], stream))
            for prompt, stream in zip(prompts, streams, strict=True)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"submitted": began, "streams": streams}

    try:
        wait_until_healthy(process, port)
        serve(version(given.binary), answer)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
