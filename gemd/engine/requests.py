"""Who waits for which answer of one worker."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from gemd import wire
from gemd.engine.mailbox import Mailbox, ends
from gemd.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.engine.channel import Channel
    from gemd.errors import GemdError

_REMEMBERED = 4096


class Requests:
    """The requests under way on one channel.

    Args:
        model: Whose worker it is; for the errors.
        channel: Where requests go out.

    """

    def __init__(self, model: str, channel: Channel) -> None:
        self._model = model
        self._channel = channel
        self._mailboxes: dict[str, Mailbox] = {}
        # Cancelled, and their last message is still to come; a dict keeps the order.
        self._cancelled: dict[str, None] = {}
        self._pings: dict[int, asyncio.Future[wire.Pong]] = {}
        self._nonces = itertools.count(1)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._mailboxes)

    def poke(self) -> None:
        """Have the engine's thread say something; nobody waits for it."""
        self._channel.send(wire.Ping(nonce=0))

    def open(
        self, request: wire.Request, *, on_complete: Callable[[], None] = lambda: None
    ) -> Mailbox:
        """Send a request; its answers come into the mailbox until `settle`.

        Args:
            request: What is asked.
            on_complete: See `Mailbox`.

        Raises:
            InvalidRequestError: The id is in use, or the request is too large.

        """
        request_id = request.request_id
        if request_id in self._mailboxes or request_id in self._cancelled:
            raise InvalidRequestError(
                f"the request id {request_id!r} is in use",
                why="ids are unique among the requests of one worker",
                metadata={"field": "request_id", "request_id": request_id},
            )
        try:
            self._channel.send(request)
        except wire.WireError as error:
            raise InvalidRequestError(
                f"the request cannot be sent to the worker of {self._model}",
                why=str(error),
                metadata={"model": self._model},
            ) from None
        mailbox = self._mailboxes[request_id] = Mailbox(on_complete)
        return mailbox

    def settle(self, request_id: str, mailbox: Mailbox) -> None:
        """Nobody reads this mailbox any more: cancel the request if it still runs."""
        del self._mailboxes[request_id]
        if mailbox.complete:
            return
        self._cancelled[request_id] = None
        # An engine may answer a cancelled Score with nothing: forget the oldest in the end.
        if len(self._cancelled) > _REMEMBERED:
            del self._cancelled[next(iter(self._cancelled))]
        self._channel.send(wire.Cancel(request_id=request_id))

    def deliver(self, message: wire.Answer | wire.Pong) -> None:
        """Take a message from the worker; one that nobody waits for is dropped."""
        if isinstance(message, wire.Pong):
            ping = self._pings.get(message.nonce)
            if ping is not None and not ping.done():
                ping.set_result(message)
            return
        mailbox = self._mailboxes.get(message.request_id)
        if mailbox is not None:
            mailbox.put(message)
        elif ends(message):
            self._cancelled.pop(message.request_id, None)

    async def ping(self) -> wire.Pong:
        """One question to the engine's thread and its answer.

        Raises:
            GemdError: The one given to `fail`.

        """
        nonce = next(self._nonces)
        answer: asyncio.Future[wire.Pong] = asyncio.get_running_loop().create_future()
        self._pings[nonce] = answer
        try:
            self._channel.send(wire.Ping(nonce=nonce))
            return await answer
        finally:
            del self._pings[nonce]

    def fail(self, failure: Callable[[bool], GemdError]) -> None:
        """End all of them; see `Mailbox.fail`."""
        for mailbox in self._mailboxes.values():
            mailbox.fail(failure)
        for ping in self._pings.values():
            if not ping.done():
                ping.set_exception(failure(False))
