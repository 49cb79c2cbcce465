"""Bytes of a file out of Xet storage, where the hub keeps it there and `hf_xet` is installed.

Xet keeps a file as chunks that many files share, and fetches them over several connections. What
it brings goes the way of any other transfer: into the part file, through the running hash.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.store.http import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gemd.store.threads import Stop

_PROGRAM: Final = Path(__file__).with_name("xet_stream.py")
_SAID_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class XetPlace:
    """Where a file is in Xet storage.

    Attributes:
        hash: Xet's own of the file.
        refresh_url: Where the hub gives addresses and passes for the storage.

    """

    hash: str
    refresh_url: str


def xet_installed() -> bool:
    """Whether the library is there, which comes with most installations of the hub's client."""
    return importlib.util.find_spec("hf_xet") is not None


def place_of(url: str, token: str, *, endpoint: str, timeout_s: float) -> XetPlace | None:
    """Where the hub says that a file is in Xet storage; None if it is not there. Blocks.

    Args:
        url: The file's address on the hub.
        token: The user's; empty for none.
        endpoint: Of the hub.
        timeout_s: For the answer.

    Raises:
        UnreachableError: The library is not installed, or the hub does not say.

    """
    if not xet_installed():
        raise UnreachableError("Xet storage cannot be used: hf_xet is not installed")
    # As in `gemd.store.hub`.
    import httpx2  # noqa: PLC0415
    from huggingface_hub import get_hf_file_metadata, get_session  # noqa: PLC0415

    from gemd.store.hub_limits import limit  # noqa: PLC0415

    try:
        limit(get_session())
        metadata = get_hf_file_metadata(
            url, token=token or False, timeout=timeout_s, library_name="gemd", endpoint=endpoint
        )
    except (httpx2.HTTPError, OSError, ValueError) as error:
        # The client's own text has lines about its request as well.
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnreachableError(f"the hub does not say what is in Xet storage: {why}") from error
    found = metadata.xet_file_data
    return None if found is None else XetPlace(found.file_hash, found.refresh_route)


class XetReader:
    """The bytes of one stream, in order."""

    def __init__(self, process: subprocess.Popen[bytes], read_timeout_s: float) -> None:
        self._process = process
        self._timeout = read_timeout_s
        assert process.stderr is not None, "as opened"
        self._errors = process.stderr.fileno()
        self._said = b""
        self._silent = False

    def read(self, limit: int) -> bytes:
        """The next bytes, at most so many; empty at the end of the file.

        Raises:
            UnreachableError: The storage failed, or gave nothing for too long.

        """
        assert self._process.stdout is not None, "as opened"
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + self._timeout
        while not self._ready(descriptor, deadline - time.monotonic()):
            if time.monotonic() >= deadline:
                raise UnreachableError(f"Xet storage gave nothing for {self._timeout:g} s")
        chunk = os.read(descriptor, limit)
        if not chunk and self._process.wait() != 0:
            raise UnreachableError(f"Xet storage failed: {self._last_words()}")
        return chunk

    def _ready(self, descriptor: int, wait_s: float) -> bool:
        """Whether there is something to read, or the end; takes what is said meanwhile."""
        watched = select.poll()
        watched.register(descriptor, select.POLLIN)
        if not self._silent:
            watched.register(self._errors, select.POLLIN)
        found = {each for each, _ in watched.poll(max(0.0, wait_s) * 1000.0)}
        if self._errors in found:
            # A library that is told to log would wait for ever on a pipe that nobody empties.
            self._listen()
        return descriptor in found

    def _listen(self) -> None:
        said = os.read(self._errors, _SAID_BYTES)
        self._silent = not said
        self._said = (self._said + said)[-_SAID_BYTES:]

    def _last_words(self) -> str:
        while not self._silent:
            self._listen()
        said = self._said.decode("utf-8", "replace").strip()
        return said.splitlines()[-1] if said else f"exit code {self._process.returncode}"


@contextlib.contextmanager
def xet_stream(
    place: XetPlace,
    *,
    size_bytes: int,
    start: int,
    token: str,
    environ: Mapping[str, str],
    read_timeout_s: float,
    stop: Stop,
) -> Iterator[XetReader]:
    """Streams a file from a byte on.

    Args:
        place: The file.
        size_bytes: Its size.
        start: The first byte that is wanted.
        token: The user's for the hub; empty for none.
        environ: Variables of the process: proxies, certificates, and the library's own settings.
        read_timeout_s: Longest silence.
        stop: Interrupts it.

    Raises:
        UnreachableError: The process cannot be started.
        Stopped: `stop` was set.

    """
    order = {
        "hash": place.hash,
        "size": size_bytes,
        "start": start,
        "refresh_url": place.refresh_url,
        "headers": {"authorization": f"Bearer {token}"} if token else {},
    }
    kept = {name: value for name, value in environ.items() if name != "HF_TOKEN"}
    try:
        process = subprocess.Popen(
            # -I: nothing of the user's is imported; the token is not among the arguments.
            [sys.executable, "-I", str(_PROGRAM)],
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise UnreachableError(f"Xet's process cannot be started: {error}") from error
    with process, stop.interruptible(process.kill):
        try:
            assert process.stdin is not None, "as opened"
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
            yield XetReader(process, read_timeout_s)
        finally:
            process.kill()
