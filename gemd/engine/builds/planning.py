"""What an installation would do on this machine, or why it cannot. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gemd.engine.builds.prerequisites import checks
from gemd.engine.builds.recipes import ways
from gemd.errors import EngineMissingError
from gemd.quantities import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gemd.engine.builds.facts import Facts
    from gemd.engine.builds.prerequisites import Check
    from gemd.engine.builds.recipes import Way


@dataclass(frozen=True, slots=True)
class Plan:
    """What an installation would do.

    Attributes:
        engine: ``llama`` or ``diffusion``.
        backend: One of `BACKENDS`.
        ways: To be tried in this order; at least one can be gone.
        checks: What compiling needs; none if nothing would be compiled.

    """

    engine: str
    backend: str
    ways: tuple[Way, ...]
    checks: tuple[Check, ...]


def plan(
    engine: str,
    backend: str,
    facts: Facts,
    *,
    only: str = "",
    environ: Mapping[str, str],
    wheel_index: str,
    torch_index: str,
) -> Plan:
    """The ways to an engine on this machine.

    Args:
        engine: ``llama`` or ``diffusion``.
        backend: One of `BACKENDS`.
        facts: The machine.
        only: ``prebuilt`` or ``source``, if it has to be this way.
        environ: See `ways`.
        wheel_index: See `ways`.
        torch_index: See `ways`.

    Raises:
        EngineMissingError: No way can be gone; the advice installs what is missing.

    """
    found = ways(
        engine,
        backend,
        facts,
        environ=environ,
        wheel_index=wheel_index,
        torch_index=torch_index,
    )
    chosen = tuple(_with_room(way, facts) for way in found if only in {"", way.kind})
    compiled = any(way.kind == "source" for way in chosen)
    needed = checks(backend, facts) if compiled else ()
    if all(way.obstacle for way in chosen):
        raise _impossible(engine, backend, chosen, only)
    return Plan(engine, backend, chosen, needed)


def _with_room(way: Way, facts: Facts) -> Way:
    if way.obstacle or facts.free_bytes >= way.disk_bytes:
        return way
    needed, free = way.disk_bytes // MIB, facts.free_bytes // MIB
    return replace(way, obstacle=f"it needs {needed} MiB of disk, and {free} are free")


def _impossible(engine: str, backend: str, found: Sequence[Way], only: str) -> EngineMissingError:
    why = "; ".join(f"{way.kind}: {way.obstacle}" for way in found)
    fixes = [command for way in found for command in way.fix]
    return EngineMissingError(
        f"the {engine} engine for {backend} cannot be installed on this machine",
        why=why or f"there is no {only} way to it",
        advice=(*dict.fromkeys(fixes), "gemctl engine list"),
        metadata={"engine": engine, "backend": backend},
    )
