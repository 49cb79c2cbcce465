"""What processors say they have used: the energy counters of RAPL, of Intel's and AMD's alike.

Linux shows them in ``/sys/class/powercap``, a zone each. Counted are the packages and, where it is
a zone of its own, the main memory beside them. Not counted are the zones inside a package, whose
energy is the package's already; «psys», which is the whole machine and so both once more; and
``intel-rapl-mmio``, the same packages read another way.

Since 2020 most distributions let nobody but root read the counters (CVE-2020-8694): then there are
none. Reading takes some ten microseconds a zone and never waits.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.hardware.files import integer_of, line_of, names_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER: Final = "sys/class/powercap"
COUNTER: Final = "energy_uj"
SEARCH_S: Final = 60.0
"""How often zones are looked for where none can be read: an administrator may allow it."""
_ZONE: Final = re.compile(r"intel-rapl:(\d+)(?::\d+)?")
_PACKAGE: Final = re.compile(r"package-\d{1,4}(?:-die-\d{1,4})?")
_MICRO: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter at one moment; joules.

    Attributes:
        joules: What it says.
        span: Where it begins again from 0; 0 if it never does.

    """

    joules: float
    span: float = 0.0


class Rapl:
    """Reads the counters that may be read.

    Args:
        root: Where /sys is.
        clock: Monotonic seconds.

    """

    def __init__(
        self, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = root / FOLDER
        self._clock = clock
        self._zones: Mapping[str, tuple[Path, float]] = {}
        self._search_at: float | None = None

    def read(self) -> dict[str, Counted]:
        """All that answer now, by source: ``cpu-package-0``, ``cpu-dram-0``."""
        if not self._zones and not self._search():
            return {}
        found = {}
        for source, (counter, span) in self._zones.items():
            value = integer_of(counter)
            if value is not None:
                found[source] = Counted(value * _MICRO, span)
        if len(found) < len(self._zones):
            # The driver was unloaded, or the right to read was taken away.
            self._zones, self._search_at = {}, None
        return found

    def _search(self) -> bool:
        """Find the zones, if it is time to; whether any was found."""
        now = self._clock()
        if self._search_at is not None and now < self._search_at:
            return False
        self._search_at = now + SEARCH_S
        self._zones = dict(self._readable())
        return bool(self._zones)

    def _readable(self) -> dict[str, tuple[Path, float]]:
        names = names_in(self._folder) or []
        packages: dict[str, str] = {}
        found = {}
        # Sorted, so that a package comes before the zones that are inside it.
        for name in names:
            matched = _ZONE.fullmatch(name)
            if matched is None:
                continue
            zone = self._folder / name
            source = _source(line_of(zone / "name"), name, matched[1], packages)
            span = integer_of(zone / "max_energy_range_uj")
            if source and span and integer_of(zone / COUNTER) is not None:
                found[source] = zone / COUNTER, span * _MICRO
        return found


def _source(said: str, name: str, number: str, packages: dict[str, str]) -> str:
    """What a zone is called here; empty if it is not counted. Notes a package by its number."""
    if name.count(":") == 1:
        if not _PACKAGE.fullmatch(said):
            return ""
        packages[number] = said.removeprefix("package-")
        return f"cpu-{said}"
    return f"cpu-dram-{packages[number]}" if said == "dram" and number in packages else ""
