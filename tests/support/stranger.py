"""Run as root with a task on stdin, this becomes another user, tries, and says what it could do.

The task is JSON: ``{"paths": […], "socket": "…", "port": 0, "pids": […]}``. A program of its own,
since a process that has once been root in a test may have things open that no stranger has.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534


def main() -> None:
    """Become nobody, try everything, and say what worked."""
    task: dict[str, Any] = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    done = [what for what, attempt in attempts(task) if worked(attempt)]
    done += asyncio.run(unguarded(task["port"], task["methods"]))
    json.dump(done, sys.stdout)


def worked(attempt: Callable[[], Any]) -> bool:
    """Whether the system let us."""
    try:
        attempt()
    except OSError:
        return False
    return True


def attempts(task: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that another user may try, each with its name."""
    yield "connected", lambda: dial(task["socket"])
    for name in task["paths"]:
        path = Path(name)
        yield f"read {name}", lambda path=path: look(path)  # type: ignore[misc]  # its own path
        yield f"wrote {name}", lambda path=path: spoil(path)  # type: ignore[misc]
    for pid in task["pids"]:
        yield f"signalled {pid}", lambda pid=pid: os.kill(pid, 0)  # type: ignore[misc]
        for name in ("environ", "mem", "maps", "fd", "cwd"):
            path = Path(f"/proc/{pid}/{name}")
            yield f"read {path}", lambda path=path: look(path)  # type: ignore[misc]


def dial(path: str) -> None:
    """Connect to a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)


def look(path: Path) -> None:
    """Read a file or list a directory."""
    if path.is_dir():
        list(path.iterdir())
    elif path.is_symlink() and path.parent.name.isdecimal():
        path.readlink()
    else:
        with path.open("rb") as file:
            file.read(1)


def spoil(path: Path) -> None:
    """Write to a file without changing it, or make one in a directory."""
    if path.is_dir():
        (path / "stranger").touch()
    else:
        os.close(os.open(path, os.O_WRONLY))


async def unguarded(port: int, methods: list[str]) -> list[str]:
    """Methods of the TCP port that did anything but say that they want a token."""
    found = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in methods:
            code = await outcome(channel, method)
            if code is not grpc.StatusCode.UNAUTHENTICATED:
                found.append(f"called {method}: {code.name}")
    return found


async def outcome(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """How a call ends, made again where the library does not tell.

    A server that ends the call before it has the request may be quicker than the client's sending;
    then gRPC says only that the sending failed.
    """
    while True:
        call = channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            async for _ in call(b"", timeout=20):
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.InvalidStateError:
            continue
        return grpc.StatusCode.OK


if __name__ == "__main__":
    main()
