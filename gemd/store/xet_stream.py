"""Writes a file of Xet storage to the standard output: run by its path, imports nothing of gemd.

A process of its own, because the library starts a pool of threads and keeps hundreds of megabytes
for the whole life of the process that imports it. Takes one JSON line on the standard input with
``hash``, ``size``, ``start``, ``refresh_url`` and ``headers``; whatever goes wrong is the last
line on the standard error, and exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
import threading


def main() -> None:
    """Stream it."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    import hf_xet  # noqa: PLC0415 - heavy, and its absence is an answer like any other

    info = hf_xet.XetFileInfo(order["hash"], order["size"])
    group = hf_xet.XetSession().new_download_stream_group(
        token_refresh_url=order["refresh_url"], token_refresh_headers=order["headers"]
    )
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        for chunk in group.download_stream(info, start=order["start"] or None):
            view = memoryview(chunk)
            while view:
                view = view[out.write(view) :]


def _end_with_input() -> None:
    """Nobody wants it any more once the input ends; the library may be in the middle of a wait."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        sys.stderr.write(f"{type(error).__name__}: {error}".replace("\n", " ") + "\n")
        sys.stderr.flush()
        os._exit(1)
    # Not by the interpreter's end: the library's threads may still be at work.
    sys.stdout.flush()
    os._exit(0)
