"""A client that does not take what is written to it any more, as one in a debugger."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.support.app import MODEL, serving, until

IN_TIME_S = 12.0
CLIENT = """
import json, sys
from gemd.client import Client, GenerationOptions
# More than gRPC and the socket hold for a client.
script = json.dumps({"tokens": ["x" * 2000] * 400, "token_seconds": 0.001})
with Client(sys.argv[1]) as client:
    for event in client.generate(script, GenerationOptions(model=sys.argv[2])):
        print(type(event).__name__, flush=True)
"""


async def test_a_frozen_client_does_not_hold_up_the_end() -> None:
    """The daemon's end is in order all the same, and well within its 20 s."""
    async with serving() as running:
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CLIENT,
            *(str(running.paths.socket), MODEL),
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdout is not None
        try:
            while (await client.stdout.readline()) != b"Delta\n":
                pass
            client.send_signal(signal.SIGSTOP)
            # The worker is done with it, and what it said waits for its reader.
            await until(lambda: running.app.manager.residence(MODEL).active == 0)
            assert running.app.requests.live()
            async with asyncio.timeout(IN_TIME_S):
                await running.app.stop(grace_s=0)
        finally:
            os.kill(client.pid, signal.SIGCONT)
            client.kill()
            await client.wait()
