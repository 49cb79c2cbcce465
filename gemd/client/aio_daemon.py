"""The part of the client that is about the daemon as a whole, for programs on asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gemd.client import daemon_calls
from gemd.client.aio_stream import AsyncStream, Transport
from gemd.client.settings import EXPLAINED, QUICK_SECONDS, WORK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.client import calls
    from gemd.client.decisions import Decision
    from gemd.client.diagnoses import Diagnosis
    from gemd.client.drained import Drained
    from gemd.client.plans import Plan
    from gemd.client.resources import Device, Event, Info, Status
    from gemd.client.yielded import YieldedMemory

T = TypeVar("T")


class AsyncDaemonClient:
    """What can be asked of the daemon itself; `AsyncClient` has the rest.

    Args:
        transport: Where calls go.

    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def info(self, *, deadline: float = QUICK_SECONDS) -> Info:
        """Who the daemon is; cheap."""
        return await self._transport.unary(daemon_calls.info(), deadline)

    async def status(self, *, deadline: float = QUICK_SECONDS) -> Status:
        """The whole state at one moment."""
        return await self._transport.unary(daemon_calls.status(), deadline)

    async def devices(self, *, deadline: float = QUICK_SECONDS) -> list[Device]:
        """The devices of this machine, GPUs first."""
        return await self._pages(daemon_calls.list_devices, deadline)

    async def plan(
        self,
        model: str = "",
        *,
        variant: str = "",
        on: str = "",
        context: int | None = None,
        budget: int | None = None,
        ignore_others: bool = False,
        allow_cpu: bool = False,
        deadline: float = WORK_SECONDS,
    ) -> Plan:
        """Which weights suit this machine or another one, and why. Changes nothing.

        Args:
            model: Only this one; empty means the best pair or single model.
            variant: Only this one of it.
            on: A device profile such as ``rtx-4090-24gb``, or the absolute path of a device file;
                empty means this machine.
            context: Room for so many tokens; None takes the settings'.
            budget: Bytes of each GPU, or of main memory where there is none; None as above.
            ignore_others: As if no other program held memory.
            allow_cpu: A GPU may be left unused.
            deadline: In seconds.

        """
        call = daemon_calls.plan(
            model=model,
            variant=variant,
            device_profile=on,
            context_length=context,
            budget_bytes=budget,
            ignore_others=ignore_others,
            allow_cpu=allow_cpu,
        )
        return await self._transport.unary(call, deadline)

    async def explain(
        self,
        *,
        model: str = "",
        device: str = "",
        request_id: str = "",
        kinds: Sequence[str] = (),
        limit: int = EXPLAINED,
        deadline: float = QUICK_SECONDS,
    ) -> list[Decision]:
        """What the daemon decided and why, newest first.

        Args:
            model: Only about this one; empty means everything.
            device: Only about this one; at most one of the three is named.
            request_id: Only about this one.
            kinds: Only these, such as ``EVICT``; empty means all.
            limit: The most decisions.
            deadline: Of each page, in seconds.

        """
        return await self._pages(
            lambda token: daemon_calls.explain(
                model=model,
                device=device,
                request_id=request_id,
                kinds=kinds,
                page_size=limit,
                page_token=token,
            ),
            deadline,
            most=limit,
        )

    def events(
        self,
        *,
        snapshot: bool = True,
        since: int | None = None,
        instance_id: str = "",
        kinds: Sequence[str] = (),
    ) -> AsyncStream[Event]:
        """Changes as they happen, until the stream is closed.

        Args:
            snapshot: Begin with the whole state.
            since: Resume after this sequence number of the run `instance_id`.
            instance_id: `Info.instance_id` of that run.
            kinds: Only these, such as ``model``; empty means all.

        """
        call = daemon_calls.watch_events(
            snapshot=snapshot, since=since, instance_id=instance_id, kinds=kinds
        )
        return AsyncStream(self._transport, call, None)

    async def give_back(
        self,
        device: str = "",
        *,
        size: int | None = None,
        keep_off: float | None = None,
        force: bool = False,
        deadline: float = WORK_SECONDS,
    ) -> tuple[YieldedMemory, ...]:
        """Give memory back to other programs now; returns when it is seen to be free.

        Running answers are finished first. One value for each device.

        Args:
            device: Whose memory; empty means all GPUs, or main memory where there is none.
            size: Bytes to give back on each device; None means all.
            keep_off: Seconds, at most a week, in which nothing is loaded there; None: it may be.
            force: Pinned models go too, and running answers are ended.
            deadline: Of the call, in seconds.

        """
        call = daemon_calls.give_back(device, size=size, keep_off=keep_off, force=force)
        return await self._transport.unary(call, deadline)

    async def resume(
        self, device: str = "", *, deadline: float = QUICK_SECONDS
    ) -> tuple[YieldedMemory, ...]:
        """End the `keep_off` of an earlier `give_back`; `device` is as there."""
        return await self._transport.unary(daemon_calls.resume(device), deadline)

    async def diagnose(
        self, checks: Sequence[str] = (), *, thorough: bool = False, deadline: float = WORK_SECONDS
    ) -> tuple[Diagnosis, ...]:
        """Look for what is wrong with the installation and the machine, as the daemon sees them.

        Args:
            checks: Only these, such as ``gpu-driver``; empty means all.
            thorough: Also run the engines and read every model's file, which takes minutes.
            deadline: Of the call, in seconds.

        """
        return await self._transport.unary(
            daemon_calls.diagnose(checks, thorough=thorough), deadline
        )

    async def drain(self, *, grace: float | None = None, deadline: float = WORK_SECONDS) -> Drained:
        """End the daemon in good order; running requests may take `grace` seconds."""
        return await self._transport.unary(daemon_calls.drain(grace), deadline)

    async def _pages(
        self,
        page: Callable[[str], calls.Unary[tuple[list[T], str]]],
        deadline: float,
        *,
        most: int | None = None,
    ) -> list[T]:
        found: list[T] = []
        token = ""
        while True:
            items, token = await self._transport.unary(page(token), deadline)
            found += items
            if not token or (most is not None and len(found) >= most):
                return found[:most]
