"""Leases as complete resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.residency.leases import Lease, LeaseState
from gemd.rpc.convert.fields import duration, invalid, model_name, short_text, timestamp
from gemd.v1 import lease_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "leases/"

STATES: Mapping[LeaseState, lease_pb2.Lease.State.ValueType] = {
    LeaseState.ACTIVE: lease_pb2.Lease.STATE_ACTIVE,
    LeaseState.EXPIRED: lease_pb2.Lease.STATE_EXPIRED,
    LeaseState.RELEASED: lease_pb2.Lease.STATE_RELEASED,
}


def lease_id(name: str) -> str:
    """The id in `leases/{id}`.

    Raises:
        InvalidRequestError: It is empty, or no id at all.

    """
    identity = short_text(name.removeprefix(PREFIX), field="name")
    if not identity:
        raise invalid("name", "name must name a lease", why="it is empty")
    return identity


def lease(found: Lease, *, wall_of: Callable[[float], float]) -> lease_pb2.Lease:
    """The whole resource.

    Args:
        found: The lease.
        wall_of: Turns the manager's monotonic seconds into seconds since the epoch.

    """
    return lease_pb2.Lease(
        name=f"{PREFIX}{found.id}",
        model=model_name(found.model),
        client=found.client,
        ttl=duration(found.ttl_s),
        create_time=timestamp(wall_of(found.created)),
        expire_time=timestamp(wall_of(found.expires)),
        state=STATES[found.state],
    )
