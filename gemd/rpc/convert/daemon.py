"""The daemon as a whole: identity, requests, counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import duration, model_name, timestamp
from gemd.rpc.convert.generation import RESOLUTIONS, STRATEGIES, TIERS
from gemd.rpc.lifecycle import Identity, Phase, StartedBy
from gemd.rpc.requests import RequestRecord, RequestState, Totals
from gemd.v1 import generation_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.routing.shares import Share

_PHASES: Mapping[Phase, status_pb2.DaemonInfo.State.ValueType] = {
    Phase.STARTING: status_pb2.DaemonInfo.STATE_STARTING,
    Phase.SERVING: status_pb2.DaemonInfo.STATE_SERVING,
    Phase.DRAINING: status_pb2.DaemonInfo.STATE_DRAINING,
}
_STARTERS: Mapping[StartedBy, status_pb2.DaemonInfo.StartedBy.ValueType] = {
    StartedBy.AUTOSTART: status_pb2.DaemonInfo.STARTED_BY_AUTOSTART,
    StartedBy.SERVICE: status_pb2.DaemonInfo.STARTED_BY_SERVICE,
    StartedBy.MANUAL: status_pb2.DaemonInfo.STARTED_BY_MANUAL,
}
_REQUEST_STATES: Mapping[RequestState, status_pb2.RequestStatus.State.ValueType] = {
    RequestState.QUEUED: status_pb2.RequestStatus.STATE_QUEUED,
    RequestState.LOADING: status_pb2.RequestStatus.STATE_LOADING,
    RequestState.RUNNING: status_pb2.RequestStatus.STATE_RUNNING,
    RequestState.FINISHED: status_pb2.RequestStatus.STATE_FINISHED,
    RequestState.FAILED: status_pb2.RequestStatus.STATE_FAILED,
    RequestState.CANCELLED: status_pb2.RequestStatus.STATE_CANCELLED,
}


def info(
    identity: Identity, phase: Phase, *, now: float, idle_exit_time: float | None
) -> status_pb2.DaemonInfo:
    """Who the daemon is; times in wall-clock seconds."""
    return status_pb2.DaemonInfo(
        version=identity.version,
        api_version="v1",
        instance_id=identity.instance_id,
        pid=identity.pid,
        socket=str(identity.socket),
        tcp_address=identity.tcp_address,
        start_time=timestamp(identity.start_time),
        uptime=duration(max(0.0, now - identity.start_time)),
        started_by=_STARTERS[identity.started_by],
        state=_PHASES[phase],
        idle_exit_time=None if idle_exit_time is None else timestamp(idle_exit_time),
        config_path=identity.config_path,
        data_path=identity.data_path,
        log_path=identity.log_path,
        platform=identity.platform,
    )


def request(record: RequestRecord) -> status_pb2.RequestStatus:
    """One request."""
    return status_pb2.RequestStatus(
        request_id=record.request_id,
        method=record.method,
        client=record.client,
        state=_REQUEST_STATES[record.state],
        model=model_name(record.model) if record.model else "",
        priority=(
            generation_pb2.PRIORITY_BACKGROUND
            if record.background
            else generation_pb2.PRIORITY_INTERACTIVE
        ),
        position=record.position,
        create_time=timestamp(record.create_time),
        start_time=None if record.start_time is None else timestamp(record.start_time),
        deadline=None if record.deadline is None else timestamp(record.deadline),
        usage=generation_pb2.Usage(
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
        ),
        tokens_per_second=record.tokens_per_second,
        error_reason=record.error_reason,
    )


def statistics(
    totals: Totals,
    *,
    loads: int,
    crashes: int,
    evictions: int,
    yields: int,
    shares: Iterable[Share] = (),
) -> status_pb2.Statistics:
    """Counts since the daemon started."""
    return status_pb2.Statistics(
        requests=totals.requests,
        failed_requests=totals.failed,
        cancelled_requests=totals.cancelled,
        prompt_tokens=totals.prompt_tokens,
        cached_tokens=totals.cached_tokens,
        completion_tokens=totals.completion_tokens,
        loads=loads,
        crashes=crashes,
        evictions=evictions,
        yields=yields,
        energy_joules=totals.energy_joules,
        routes=[_share(each) for each in shares],
    )


def _share(given: Share) -> status_pb2.Statistics.RouteShare:
    return status_pb2.Statistics.RouteShare(
        strategy=STRATEGIES[given.strategy],
        tier=TIERS[given.tier],
        resolution=(
            generation_pb2.Resolved.RESOLUTION_UNSPECIFIED
            if given.resolution is None
            else RESOLUTIONS[given.resolution]
        ),
        requests=given.requests,
        median_duration=duration(given.median_s),
        p95_duration=duration(given.p95_s),
    )
