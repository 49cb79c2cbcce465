"""``python -m gemd.worker``: one worker process, as `gemd.engine` starts it."""

from __future__ import annotations

import argparse
import socket
import traceback
from typing import NoReturn

from gemd.worker.guard import guard
from gemd.worker.host import ENGINES, EXIT_CRASHED, WorkerHost, end_process


def main() -> NoReturn:
    """Run one worker until its daemon closes the channel."""
    parser = argparse.ArgumentParser(prog="gemd.worker", description=__doc__)
    parser.add_argument("--engine", required=True, choices=sorted(ENGINES))
    parser.add_argument("--identity", required=True, help="what every frame has to carry")
    parser.add_argument("--fd", required=True, type=int, help="the connected socket, inherited")
    parser.add_argument("--parent", required=True, type=int, help="process id of the daemon")
    arguments = parser.parse_args()

    guard(parent=arguments.parent, name=f"gemd:{arguments.identity.rpartition('#')[0]}")
    channel = socket.socket(fileno=arguments.fd)
    # A helper process of an engine must not keep the channel open after the worker's end.
    channel.set_inheritable(False)
    channel.setblocking(True)
    try:
        WorkerHost(channel, identity=arguments.identity).serve(arguments.engine)
    except BaseException:  # noqa: BLE001 - whatever it is, it ends the process and is in the log
        traceback.print_exc()
        end_process(EXIT_CRASHED)


if __name__ == "__main__":
    main()
