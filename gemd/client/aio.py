"""The client for programs on asyncio."""

from __future__ import annotations

import random as random_source
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

from gemd.client import calls, disk_calls, inputs, lease_calls
from gemd.client.aio_making import AsyncMakingClient
from gemd.client.aio_stream import AsyncGeneration, AsyncStream, Transport
from gemd.client.collect import ready_model
from gemd.client.endpoint import Endpoint
from gemd.client.errors import GemdClientError
from gemd.client.retry import RetryPolicy
from gemd.client.settings import CLIENT_NAME, QUICK_SECONDS, WORK_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from gemd.client.answers import Embeddings, Scores, TokenCount
    from gemd.client.disk import DiskUse
    from gemd.client.events import LoadEvent
    from gemd.client.leases import Lease
    from gemd.client.operations import Operation
    from gemd.client.resources import Model
    from gemd.v1 import generation_pb2


class AsyncClient(AsyncMakingClient):
    """Talks to one daemon; belongs to the event loop that it is first used on.

    Every method raises `GemdClientError` or one of its subclasses when the call fails. Only
    UNAVAILABLE is retried, and a generation only before its first text.

    Args:
        address: Path of the daemon's socket, or ``HOST:PORT``.
        token: The daemon's token; its TCP port wants one.
        tls: For the port: a PEM file with the certificate that it shows, or with its authority's;
            True for authorities that everybody trusts. Beyond this machine it has to be given.
        name: The calling program, such as ``my-editor/1.2``: for its log and status.
        retry: Bounds of the retries.
        random: Draws from [0, 1) for their spread.

    """

    def __init__(
        self,
        address: str | Path,
        *,
        token: str | None = None,
        tls: bool | str | Path = False,
        name: str = CLIENT_NAME,
        retry: RetryPolicy | None = None,
        random: Callable[[], float] = random_source.random,
    ) -> None:
        self.endpoint = Endpoint.parse(address, token, tls=tls)
        self._name = name
        super().__init__(Transport(self.endpoint, retry or RetryPolicy(), random))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        await self._transport.close()

    # --- generation ---------------------------------------------------------------------

    def chat(
        self,
        conversation: inputs.Conversation,
        options: calls.GenerationOptions | None = None,
        *,
        deadline: float | None = None,
    ) -> AsyncGeneration:
        """Answer a conversation, or one message given as a string.

        Nothing is sent before the first event is asked for. `deadline` is in seconds.
        """
        return self._generate(inputs.chat_proto(conversation), options, deadline)

    def generate(
        self,
        text: inputs.Text,
        options: calls.GenerationOptions | None = None,
        *,
        deadline: float | None = None,
    ) -> AsyncGeneration:
        """Continue a text, or token ids, as they are: without a chat template."""
        return self._generate(text, options, deadline)

    def _generate(
        self,
        source: inputs.Text | generation_pb2.Chat,
        options: calls.GenerationOptions | None,
        deadline: float | None,
    ) -> AsyncGeneration:
        call = calls.generate(source, options or calls.GenerationOptions(), self._name)
        return AsyncGeneration(self._transport, call, deadline)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        pooling: inputs.Pooling | None = None,
        normalize: bool = True,
        background: bool = False,
        request_id: str = "",
        deadline: float = WORK_SECONDS,
    ) -> Embeddings:
        """One vector per text.

        Args:
            texts: At least one, none of them empty.
            model: The model; empty leaves the choice to the daemon.
            pooling: How the vectors of a text's tokens become one; None is the way that the model
                was made for, and the mean if that is not known. A model that was made for a way
                that gemd does not go is an `InvalidRequestError` then.
            normalize: Scale each vector to length 1.
            background: Nobody sits before it: requests that somebody waits for go first.
            request_id: For the daemon's log and events; empty lets it make one.
            deadline: In seconds.

        """
        call = calls.embed(
            texts,
            model=model,
            pooling=pooling,
            normalize=normalize,
            background=background,
            request_id=request_id,
            client=self._name,
        )
        return await self._transport.unary(call, deadline)

    async def score(
        self,
        prompt: inputs.Text | Sequence[inputs.Message],
        continuations: Sequence[inputs.Text],
        *,
        model: str = "",
        alternatives: int = 0,
        background: bool = False,
        request_id: str = "",
        deadline: float = WORK_SECONDS,
    ) -> Scores:
        """How likely the continuations of a text, of token ids or of a conversation are.

        Args:
            prompt: What comes before each continuation.
            continuations: Texts or token ids, at least one.
            model: The model; empty leaves the choice to the daemon.
            alternatives: How many likely tokens to return beside each one.
            background: Nobody sits before it: requests that somebody waits for go first.
            request_id: For the daemon's log and events; empty lets it make one.
            deadline: In seconds.

        """
        call = calls.score(
            inputs.prompt_source(prompt),
            continuations,
            model=model,
            alternatives=alternatives,
            background=background,
            request_id=request_id,
            client=self._name,
        )
        return await self._transport.unary(call, deadline)

    async def count_tokens(
        self,
        prompt: inputs.Text | Sequence[inputs.Message],
        *,
        model: str = "",
        include_token_ids: bool = False,
        deadline: float = WORK_SECONDS,
    ) -> TokenCount:
        """Tokens of a text or a conversation as the model would read it."""
        call = calls.count_tokens(
            inputs.prompt_source(prompt), model, include_token_ids=include_token_ids
        )
        return await self._transport.unary(call, deadline)

    async def send_feedback(
        self,
        request_id: str,
        signal: inputs.Signal,
        *,
        candidate: int = 0,
        deadline: float = QUICK_SECONDS,
    ) -> bool:
        """Tell what became of an answer, so that the daemon learns when a draft is good enough.

        Args:
            request_id: `Started.request_id` of the answer.
            signal: What became of it.
            candidate: Which of the request's answers.
            deadline: In seconds.

        Returns:
            Whether the daemon could use it: not if no draft became that answer, or if it no
            longer remembers the request.

        """
        call = calls.send_feedback(request_id, signal, candidate)
        return await self._transport.unary(call, deadline)

    # --- models -------------------------------------------------------------------------

    async def models(
        self, states: Sequence[str] = (), *, deadline: float = QUICK_SECONDS
    ) -> list[Model]:
        """All models, or those in one of the states, such as ``READY``; ordered by id."""
        return await self._pages(lambda token: calls.list_models(states, token), deadline)

    async def model(self, name: str, *, deadline: float = QUICK_SECONDS) -> Model:
        """One model by its id."""
        return await self._transport.unary(calls.get_model(name), deadline)

    def load(
        self,
        model: str,
        *,
        context_length: int | None = None,
        allow_cpu: bool = False,
        clear_failure: bool = False,
        background: bool = False,
        deadline: float | None = None,
    ) -> AsyncStream[LoadEvent]:
        """Make a model warm; the last event is the READY `Model`.

        Args:
            model: Its id, or the absolute path of a file.
            context_length: Only None: this version's daemon answers any number with
                `UnimplementedError`, and its settings decide.
            allow_cpu: A GPU may be left unused.
            clear_failure: Forget earlier crashes, and try now.
            background: Nobody sits before it: loads that somebody waits for go first.
            deadline: Of the whole load, in seconds; None is none.

        """
        call = calls.load(
            model,
            context_length=context_length,
            allow_cpu=allow_cpu,
            clear_failure=clear_failure,
            background=background,
            client=self._name,
        )
        return AsyncStream(self._transport, call, deadline)

    async def load_and_wait(self, model: str, *, deadline: float | None = None) -> Model:
        """Make a model warm, and return it when it is."""
        async with self.load(model, deadline=deadline) as events:
            return ready_model([event async for event in events])

    async def unload(
        self,
        model: str,
        *,
        drain_timeout: float | None = None,
        deadline: float = WORK_SECONDS,
    ) -> Model:
        """Make a model cold; returns when its memory is released.

        `drain_timeout` is how many seconds running requests may take; None: as they need.
        """
        return await self._transport.unary(calls.unload(model, drain_timeout), deadline)

    async def pin(
        self, model: str, *, pinned: bool = True, deadline: float = QUICK_SECONDS
    ) -> Model:
        """Forbid the eviction of a model, or allow it again."""
        return await self._transport.unary(calls.pin(model, pinned=pinned), deadline)

    # --- leases -------------------------------------------------------------------------

    async def create_lease(
        self,
        model: str,
        *,
        ttl: float | None = None,
        load: bool = False,
        deadline: float = QUICK_SECONDS,
    ) -> Lease:
        """Keep a model warm for `ttl` seconds, from 1 to a day; None: ten minutes.

        With `load` it is also made warm, in the background.
        """
        call = lease_calls.create(model, ttl=ttl, load=load, client=self._name)
        return await self._transport.unary(call, deadline)

    async def renew_lease(
        self, name: str, *, ttl: float | None = None, deadline: float = QUICK_SECONDS
    ) -> Lease:
        """Start the time of a lease, ``leases/{id}``, anew; None: as long as before."""
        return await self._transport.unary(lease_calls.renew(name, ttl), deadline)

    async def release_lease(self, name: str, *, deadline: float = QUICK_SECONDS) -> None:
        """End a lease; nothing happens if it has ended already."""
        await self._transport.unary(lease_calls.release(name), deadline)

    async def leases(self, *, model: str = "", deadline: float = QUICK_SECONDS) -> list[Lease]:
        """The active leases, all or those on one model; oldest first."""
        return await self._pages(lambda token: lease_calls.list_leases(model, token), deadline)

    @asynccontextmanager
    async def lease(
        self,
        model: str,
        *,
        ttl: float | None = None,
        load: bool = False,
        deadline: float = QUICK_SECONDS,
    ) -> AsyncIterator[Lease]:
        """A lease for a ``with`` block, which is released at its end.

        Nothing renews it: a block that lasts longer than `ttl` calls `renew_lease`.
        """
        held = await self.create_lease(model, ttl=ttl, load=load, deadline=deadline)
        try:
            yield held
        finally:
            # A lease that cannot be released ends by itself; the block has not failed.
            with suppress(GemdClientError):
                await self.release_lease(held.name, deadline=deadline)

    # --- files --------------------------------------------------------------------------

    async def pull(
        self,
        model: str,
        *,
        variant: str = "",
        force: bool = False,
        accept_licence: bool = False,
        source: str = "",
        revision: str = "",
        deadline: float = QUICK_SECONDS,
    ) -> Operation:
        """Begin to fetch a model, or join a pull of it; follow it with `watch`.

        Without a variant it is the one that suits the daemon's machine. `source` is the kind of
        the only one to use, and `revision` a commit, tag or branch of it.
        """
        call = calls.pull(
            model,
            variant=variant,
            force=force,
            accept_licence=accept_licence,
            source=source,
            revision=revision,
        )
        return await self._transport.unary(call, deadline)

    async def delete(
        self,
        model: str,
        *,
        variant: str = "",
        force: bool = False,
        deadline: float = QUICK_SECONDS,
    ) -> Operation:
        """Begin to remove a model's files, or those of one variant; `force` unloads it first."""
        return await self._transport.unary(
            calls.delete(model, variant=variant, force=force), deadline
        )

    async def prune(
        self,
        *,
        dry_run: bool = False,
        unused_for: float | None = None,
        keep_bytes: int | None = None,
        deadline: float = QUICK_SECONDS,
    ) -> Operation:
        """Begin to remove from disk what nobody needs; `raw.prune` of its last snapshot says what.

        Args:
            dry_run: Only say what would go.
            unused_for: Also variants that were not used for so many seconds.
            keep_bytes: Also variants, the longest unused first, until gemd's take at most this.
            deadline: In seconds, for the beginning.

        """
        call = disk_calls.prune(dry_run=dry_run, unused_for=unused_for, keep_bytes=keep_bytes)
        return await self._transport.unary(call, deadline)

    async def disk_use(self, *, deadline: float = QUICK_SECONDS) -> DiskUse:
        """What all models take on disk."""
        return await self._transport.unary(disk_calls.disk_use(), deadline)
