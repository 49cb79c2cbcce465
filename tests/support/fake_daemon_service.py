"""The DaemonService of `FakeDaemon`; its state is in the daemon's script."""
# ruff: noqa: D102, N802 - the methods are RPCs: named and documented in proto/.

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gemd.v1 import daemon_service_pb2, daemon_service_pb2_grpc
from gemd.v1 import status_pb2 as daemon_status_pb2

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    import grpc

    from tests.support.fake_daemon import Script


class FakeDaemonService(daemon_service_pb2_grpc.DaemonServiceServicer):
    """The daemon as a whole; `FakeDaemon` has what it works with."""

    script: Script
    draining: threading.Event
    _enter: Callable[..., None]
    Plan: Any
    Reload: Any

    def _info(self) -> daemon_status_pb2.DaemonInfo:
        info = daemon_status_pb2.DaemonInfo(
            version="0.1.0",
            api_version="v1",
            instance_id="i-1",
            pid=os.getpid(),
            socket="/run/gemd.sock",
            started_by=daemon_status_pb2.DaemonInfo.STARTED_BY_MANUAL,
            state=daemon_status_pb2.DaemonInfo.STATE_SERVING,
            platform="Linux x86_64",
        )
        info.uptime.FromSeconds(4000)
        return info

    def GetInfo(
        self, request: daemon_service_pb2.GetInfoRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.GetInfoResponse:
        self._enter("GetInfo", request, context)
        return daemon_service_pb2.GetInfoResponse(info=self._info())

    def GetStatus(
        self, request: daemon_service_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.GetStatusResponse:
        self._enter("GetStatus", request, context)
        return daemon_service_pb2.GetStatusResponse(
            status=daemon_status_pb2.DaemonStatus(
                info=self._info(),
                sequence=12345678901234,
                devices=self.script.devices,
                models=list(self.script.models.values()),
                operations=self.script.pull,
                leases=list(self.script.leases.values()),
                schedules=self.script.schedules,
                running_requests=1,
                queued_requests=2,
                on_battery=self.script.on_battery,
                routing=self.script.routing,
                statistics=daemon_status_pb2.Statistics(routes=self.script.routes),
                conditions=[
                    daemon_status_pb2.Condition(
                        type="SensorBlind",
                        subject="devices/cpu",
                        status=daemon_status_pb2.Condition.STATUS_TRUE,
                        severity=daemon_status_pb2.Condition.SEVERITY_WARNING,
                        reason="NO_SENSOR",
                        message="the use of others cannot be told",
                        advice=["gemctl devices"],
                    )
                ],
            )
        )

    def ListDevices(
        self, request: daemon_service_pb2.ListDevicesRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.ListDevicesResponse:
        self._enter("ListDevices", request, context)
        return daemon_service_pb2.ListDevicesResponse(devices=self.script.devices)

    def WatchEvents(
        self, request: daemon_service_pb2.WatchEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[daemon_service_pb2.WatchEventsResponse]:
        self._enter("WatchEvents", request, context)
        answers = self.script.watches.pop(0) if self.script.watches else self.script.events
        for each in answers:
            if callable(each):
                each(context)
            else:
                yield each

    def Explain(
        self, request: daemon_service_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.ExplainResponse:
        self._enter("Explain", request, context)
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.script.page_size)
        made = self.script.decisions
        return daemon_service_pb2.ExplainResponse(
            decisions=made[start:end], next_page_token=str(end) if end < len(made) else ""
        )

    def Yield(
        self, request: daemon_service_pb2.YieldRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.YieldResponse:
        self._enter("Yield", request, context)
        return daemon_service_pb2.YieldResponse(yielded=self.script.yielded)

    def Diagnose(
        self, request: daemon_service_pb2.DiagnoseRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.DiagnoseResponse:
        self._enter("Diagnose", request, context)
        return daemon_service_pb2.DiagnoseResponse(diagnoses=self.script.diagnoses)

    def Drain(
        self, request: daemon_service_pb2.DrainRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.DrainResponse:
        self._enter("Drain", request, context)
        self.draining.set()
        return self.script.drained
