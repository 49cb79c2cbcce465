"""How the store reaches the world: endpoints, patience, and whose environment counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Retries:
    """Patience with a transfer that breaks.

    Attributes:
        attempts: Failures in a row, without `progress_bytes` in between, after which it is over.
        first_delay_s: Wait before the first retry; doubled each time.
        longest_delay_s: Upper bound of the wait, and of a Retry-After that is honoured.
        progress_bytes: So many new bytes make the count of failures start anew.

    """

    attempts: int = 5
    first_delay_s: float = 0.5
    longest_delay_s: float = 60.0
    progress_bytes: int = 1 << 20

    def delay_s(self, failures: int) -> float:
        """The wait after so many failures in a row (1 is the first)."""
        return min(self.first_delay_s * 2.0 ** (failures - 1), self.longest_delay_s)


@dataclass(frozen=True)
class Transport:
    """Settings of everything that crosses the network.

    Attributes:
        hub_endpoint: Base URL of the model hub.
        hub_timeout_s: Whole time that the hub gets to say what it has, and then to send the
            first bytes of it, before the next source.
        xet: Large files come from the hub through Xet storage, where it keeps them there.
        offline: Neither the hub nor a package index is asked.
        connect_timeout_s: For each address of a server, and for TLS; name resolution has the
            patience of the system.
        read_timeout_s: A transfer that brings nothing for so long has stalled.
        retries: What happens after cuts, stalls and busy servers.
        second_way_timeout_s: Whole time for pip or uv, which show no progress to judge by.
        environ: Environment with pip's, uv's, proxy and certificate variables.

    """

    hub_endpoint: str = "https://huggingface.co"
    hub_timeout_s: float = 5.0
    xet: bool = False
    offline: bool = False
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    retries: Retries = Retries()
    second_way_timeout_s: float = 1800.0
    environ: Mapping[str, str] = field(default_factory=dict)
