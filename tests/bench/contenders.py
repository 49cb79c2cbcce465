"""Everything that answers prompts: gemd's worker, the whole way through the daemon, peers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc.aio

from gemd import wire
from gemd.client import AsyncClient, Delta, GenerationOptions, Sampling
from gemd.engine.worker import Worker, WorkerSpec
from tests.bench.rounds import Stamp, Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from tests.bench.setting import Setting

SCRIPTS = Path(__file__).parent / "peers"
_ANSWER_SECONDS = 300.0
_LINE_BYTES = 1 << 24


class PeerMissingError(Exception):
    """A peer cannot be started; its text says why."""


class WorkerContender:
    """A worker process, driven as the daemon drives it."""

    def __init__(self, worker: Worker) -> None:
        self.name = "gemd worker"
        self._worker = worker
        self._ids = 0

    async def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> Turn:
        """See `Contender`."""
        submitted = time.monotonic()
        return Turn(submitted, await _together(self.stream(p, tokens) for p in prompts))

    async def stream(self, prompt: Sequence[int], tokens: int) -> tuple[Stamp, ...]:
        """One answer."""
        self._ids += 1
        request = wire.Generate(
            request_id=f"bench-{self._ids}",
            prompt=wire.Prompt(tokens=tuple(prompt)),
            sampling=wire.Sampling(temperature=0, max_tokens=tokens),
        )
        async with contextlib.aclosing(self._worker.generate(request)) as messages:
            stamps = [
                Stamp(time.monotonic(), len(message.tokens))
                async for message in messages
                if isinstance(message, wire.Delta)
            ]
        return tuple(stamps)


class DaemonContender:
    """The whole way: client, gRPC over the socket, daemon, worker, and back."""

    def __init__(self, client: AsyncClient, model: str) -> None:
        self.name = "through the daemon"
        self._client = client
        self._model = model

    async def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> Turn:
        """See `Contender`."""
        submitted = time.monotonic()
        return Turn(submitted, await _together(self.stream(p, tokens) for p in prompts))

    async def stream(self, prompt: Sequence[int], tokens: int) -> tuple[Stamp, ...]:
        """One answer."""
        options = GenerationOptions(
            model=self._model, sampling=Sampling(temperature=0, max_tokens=tokens)
        )
        async with self._client.generate(prompt, options) as events:
            stamps = [
                Stamp(time.monotonic(), len(event.token_ids))
                async for event in events
                if isinstance(event, Delta)
            ]
        return tuple(stamps)


class EmptyService:
    """A gRPC service that does nothing, called as the daemon is: what no daemon can undercut."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.name = "an empty gRPC service"
        self._call: Any = channel.unary_stream("/bench/Empty")

    async def stream(self, prompt: Sequence[int], tokens: int) -> tuple[Stamp, ...]:
        """Two messages, whatever is asked for."""
        return tuple([Stamp(time.monotonic(), 1) async for _ in self._call(b"")])


@contextlib.asynccontextmanager
async def empty_service() -> AsyncIterator[EmptyService]:
    """The service in a process of its own, and a connection to it."""
    with tempfile.TemporaryDirectory(prefix="gemd-bench-") as folder:
        socket = Path(folder) / "socket"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPTS / "empty_service.py"),
            *("--socket", str(socket)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        options = (("grpc.default_authority", "localhost"),)
        async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
            try:
                yield EmptyService(channel)
            finally:
                process.kill()
                await process.wait()


class Peer:
    """A process that speaks the lines of `peers/lines.py`.

    Attributes:
        version: Of its library, as it says itself.

    """

    def __init__(self, process: asyncio.subprocess.Process, version: str) -> None:
        self._process = process
        self.version = version

    @classmethod
    async def start(cls, python: str, script: str, *arguments: str) -> Self:
        """Start a script of `peers/` and wait until its model is loaded.

        Raises:
            PeerMissingError: It ended before.

        """
        process = await asyncio.create_subprocess_exec(
            python,
            str(SCRIPTS / script),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Libraries log there; the bench's own output is a table.
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LINE_BYTES,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            raise PeerMissingError(f"{script} ended with exit code {process.returncode}")
        return cls(process, json.loads(line)["version"])

    async def ask(self, **request: Any) -> dict[str, Any]:
        """One question and its answer.

        Raises:
            PeerMissingError: It has ended.

        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(_ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise PeerMissingError("it ended in the middle of the run")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class PeerContender:
    """One way of decoding that a peer offers."""

    def __init__(self, name: str, peer: Peer, variant: str = "") -> None:
        self.name = name
        self._peer = peer
        self._variant = variant

    async def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> Turn:
        """See `Contender`."""
        answer = await self._peer.ask(
            variant=self._variant, prompts=[list(prompt) for prompt in prompts], tokens=tokens
        )
        return Turn(
            answer["submitted"],
            tuple(tuple(Stamp(at, count) for at, count in stream) for stream in answer["streams"]),
        )


async def _together(streams: Any) -> tuple[tuple[Stamp, ...], ...]:
    pending: list[Awaitable[tuple[Stamp, ...]]] = list(streams)
    return tuple(await asyncio.gather(*pending))


@contextlib.asynccontextmanager
async def worker_of(setting: Setting) -> AsyncIterator[Worker]:
    """A worker with the model of the bench, and the settings a daemon would give it."""
    load = wire.Load(
        path=str(setting.model),
        context_tokens=setting.context_tokens,
        max_sequences=setting.parallel,
        threads=setting.threads,
        prompt_cache_bytes=setting.prompt_cache_bytes,
    )
    worker = await Worker.start(
        WorkerSpec(model="bench", engine="llama", load=load, environ=os.environ)
    )
    try:
        yield worker
    finally:
        await worker.stop(grace_s=0)


@contextlib.asynccontextmanager
async def peer_of(setting: Setting, name: str) -> AsyncIterator[Peer]:
    """A peer with the model of the bench.

    Raises:
        PeerMissingError: It is not there.

    """
    arguments = [
        *("--model", str(setting.model)),
        *("--context-tokens", str(setting.context_tokens)),
        *("--threads", str(setting.threads)),
    ]
    python, script = sys.executable, f"{name}.py"
    if name in {"xllamacpp_server", "llama_server"}:
        if setting.peers is None:
            raise PeerMissingError("no --peers DIR was given")
        arguments += ["--parallel", str(setting.parallel)]
        if name == "xllamacpp_server":
            python = str(setting.peers.xllamacpp_python)
            _demand(setting.peers.xllamacpp_python)
        else:
            _demand(setting.peers.llama_server)
            arguments += ["--binary", str(setting.peers.llama_server)]
    peer = await Peer.start(python, script, *arguments)
    try:
        yield peer
    finally:
        await peer.stop()


def _demand(path: Path) -> None:
    if not path.exists():
        raise PeerMissingError("it has not been built; `--build-peers` builds it")
