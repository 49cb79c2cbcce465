"""GPUs that are not here: a device file, and what a daemon that runs on it sees.

The file is TOML. It takes the place of this machine's GPUs, is read again whenever it changes,
and may be rewritten while the daemon runs: that is how «another program takes 6 GB» is
rehearsed. All sizes are text with a unit::

    [[gpu]]                     # one table for each GPU
    name = "NVIDIA GeForce RTX 4090"
    capacity = "24GiB"
    id = "gpu0"                 # gpu0, gpu1, ... by position if left out
    vendor = "nvidia"           # nvidia, amd, intel, apple or other (other)
    others = "1.5GiB"           # what other programs hold (0B)
    drives_display = true       # unknown if left out
    compute_capability = "8.9"  # or gfx1100, ...; unknown if left out
    bandwidth = "1008GB"        # a second; unknown if left out
    scale = 100.0               # a worker holds so many times its real resident size (1.0)
    hidden_processes = false    # true: the driver does not tell who holds what
    lost = false                # true: it has fallen off the bus

    [ram]                       # without this table RAM is this machine's
    capacity = "64GiB"          # this machine's if left out
    others = "12GiB"            # what other programs hold (0B)

    [power]
    on_battery = true           # without this table it is this machine's

What workers hold is real: the resident size of each process, on the GPU that it was placed on and
in RAM. Where it does not fit beside `others`, `others` gives way, and nothing is free. A file
that cannot be used is refused when the daemon starts; later the last good one stays in force
and the log says so.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gemd.errors import ConfigError
from gemd.hardware.process import process_rss_bytes
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, GpuReadings
from gemd.hardware.split import split_made_up
from gemd.quantities import format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

log = structlog.get_logger("gemd.hardware")

_MOST_FILE_BYTES: Final = 1 << 20


def _size(value: object) -> int:
    if not isinstance(value, str):
        # A number in the file has no unit; guessing one would be wrong half of the time.
        raise ValueError("has to be text with a unit, in quotes")  # noqa: TRY004 -- pydantic's way
    return parse_bytes(value)


Size = Annotated[int, BeforeValidator(_size)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SimulatedGpu(_Table):
    """One `[[gpu]]` of a device file; see the module."""

    name: str = Field(min_length=1)
    capacity: Size = Field(gt=0)
    id: str = Field(default="", pattern=r"^(gpu[0-9]{1,3})?$")
    vendor: Literal["nvidia", "amd", "intel", "apple", "other"] = "other"
    others: Size = 0
    drives_display: bool | None = None
    compute_capability: str = ""
    bandwidth: Size | None = None
    scale: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False)
    hidden_processes: bool = False
    lost: bool = False

    @model_validator(mode="after")
    def _fits(self) -> SimulatedGpu:
        if self.others > self.capacity:
            raise ValueError(_more(self.others, self.capacity))
        return self


class SimulatedRam(_Table):
    """The `[ram]` of a device file."""

    capacity: Size | None = Field(default=None, gt=0)
    others: Size = 0

    @model_validator(mode="after")
    def _fits(self) -> SimulatedRam:
        if self.capacity is not None and self.others > self.capacity:
            raise ValueError(_more(self.others, self.capacity))
        return self


class SimulatedPower(_Table):
    """The `[power]` of a device file."""

    on_battery: bool


class DeviceTable(_Table):
    """All that a device file says."""

    gpu: tuple[SimulatedGpu, ...] = Field(default=(), strict=False)
    ram: SimulatedRam | None = None
    power: SimulatedPower | None = None

    @model_validator(mode="after")
    def _differ(self) -> DeviceTable:
        ids = [gpu.id for gpu in self.gpus()]
        if twice := sorted({each for each in ids if ids.count(each) > 1}):
            raise ValueError(f"has two GPUs with the id {twice[0]}")
        return self

    def gpus(self) -> list[SimulatedGpu]:
        """The GPUs, each with an id."""
        return [
            gpu.model_copy(update={"id": gpu.id or f"gpu{position}"})
            for position, gpu in enumerate(self.gpu)
        ]


class DeviceFile:
    """A device file that is followed.

    Args:
        path: Where it is.

    Raises:
        ConfigError: It cannot be used. `metadata` has ``file``, and ``line``, ``key``, ``nearest``
            as far as they apply.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = _mark(path)
        self._table = read_devices(path)

    def table(self) -> DeviceTable:
        """What it says now, or said last when it could be used."""
        mark = _mark(self.path)
        if mark != self._mark:
            # Marked first: a file that changes while it is read is read once more.
            self._mark = mark
            try:
                self._table = read_devices(self.path)
            except ConfigError as error:
                log.warning("devices.unusable", file=str(self.path), why=error.why)
            else:
                log.info("devices.changed", file=str(self.path))
        return self._table


class SimulatedGpus:
    """The GPUs of a device file.

    Args:
        file: Where they are described.
        resident: Resident bytes of a worker by its pid; 0 if it is gone.

    """

    def __init__(
        self, file: DeviceFile, *, resident: Callable[[int], int] = process_rss_bytes
    ) -> None:
        self._file = file
        self._resident = resident
        self._seen: dict[str, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no reading has shown a GPU yet."""
        return not self._seen

    def read(self, workers: Mapping[int, str]) -> GpuReadings:
        """All of them now."""
        gpus = self._file.table().gpus()
        self._seen |= dict.fromkeys(gpu.id for gpu in gpus)
        present = [gpu for gpu in gpus if not gpu.lost]
        ids = {gpu.id for gpu in present}
        return GpuReadings(
            devices=tuple(self._reading(gpu, workers) for gpu in present),
            lost=tuple(each for each in self._seen if each not in ids),
        )

    def _reading(self, gpu: SimulatedGpu, workers: Mapping[int, str]) -> DeviceReading:
        split = split_made_up(
            capacity=gpu.capacity,
            others=gpu.others,
            workers={
                pid: int(self._resident(pid) * gpu.scale)
                for pid, device in workers.items()
                if device == gpu.id
            },
            hidden=gpu.hidden_processes,
        )
        return DeviceReading(
            device=gpu.id,
            kind=DeviceKind.DISCRETE_GPU,
            capacity_bytes=gpu.capacity,
            free_bytes=split.free,
            processes=split.processes,
            others_bytes=split.others,
            name=gpu.name,
            hardware_id=f"simulated-{gpu.id}",
            vendor=gpu.vendor,
            architecture=gpu.compute_capability,
            bandwidth_bytes_per_s=gpu.bandwidth,
            drives_display=gpu.drives_display,
            simulated=True,
        )


def simulate_ram(real: DeviceReading, ram: SimulatedRam) -> DeviceReading:
    """Main memory as a device file has it, with the workers' real use of this machine's."""
    capacity = real.capacity_bytes if ram.capacity is None else ram.capacity
    split = split_made_up(capacity=capacity, others=ram.others, workers=real.processes or {})
    return DeviceReading(
        device=RAM,
        kind=DeviceKind.CPU,
        capacity_bytes=capacity,
        free_bytes=None if real.processes is None else split.free,
        processes=None if real.processes is None else split.processes,
        others_bytes=split.others,
        name=real.name,
        vendor=real.vendor,
        simulated=True,
    )


def read_devices(path: Path) -> DeviceTable:
    """What a device file says.

    Raises:
        ConfigError: See `DeviceFile`.

    """
    text = ""
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise _refusal(path, why=f"it is larger than {format_bytes(_MOST_FILE_BYTES)}")
        text = path.read_text(encoding="utf-8")
        return DeviceTable.model_validate(tomllib.loads(text))
    except FileNotFoundError:
        raise _refusal(
            path, why="there is no such file", advice=("unset GEMD_DEVICES_FILE",)
        ) from None
    except RecursionError:
        raise _refusal(path, why="it is nested too deeply") from None
    except ValidationError as error:
        raise _explained(path, text, error.errors(include_url=False)[0]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refusal(path, why=str(error)) from None


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What tells one content from the next; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _more(others: int, capacity: int) -> str:
    return f"has others of {format_bytes(others)}, more than its capacity {format_bytes(capacity)}"


def _explained(path: Path, text: str, detail: ErrorDetails) -> ConfigError:
    where = detail["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    key = key.removeprefix(".")
    line = _line_of(text, where)
    at = f" (line {line})" if line else ""
    facts: dict[str, object] = {"key": key, "line": line}
    if detail["type"] == "extra_forbidden":
        name = str(where[-1])
        nearest = difflib.get_close_matches(name, _known_keys(where), n=1, cutoff=0.0)[0]
        return _refusal(
            path,
            why=f"{key}{at} is not known; the nearest one is {nearest}",
            advice=(f"write {nearest} instead of {name}",),
            facts=facts | {"nearest": nearest},
        )
    problem = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        problem = "is missing"
    elif problem == detail["msg"]:
        problem = f"is {detail['input']!r:.100} ({problem[:1].lower()}{problem[1:]})"
    return _refusal(path, why=f"{key or 'it'}{at} {problem}", facts=facts)


def _known_keys(where: tuple[int | str, ...]) -> list[str]:
    """Keys of the table in which the one at `where` stands."""
    tables: dict[object, type[BaseModel]] = {
        "gpu": SimulatedGpu,
        "ram": SimulatedRam,
        "power": SimulatedPower,
    }
    model = tables.get(where[0], DeviceTable) if len(where) > 1 else DeviceTable
    return list(model.model_fields)


def _line_of(text: str, where: tuple[int | str, ...]) -> int:
    """The line of a key, or of its table where the key is not there; 0 if not found."""
    if not where:
        return 0
    headers = {f"[[{where[0]}]]", f"[{where[0]}]"}
    skip = next((part for part in where if isinstance(part, int)), 0)
    table = 0
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.partition("#")[0].replace(" ", "").replace("\t", "")
        if table and bare.startswith("["):
            break
        if bare in headers:
            table = number if skip == 0 else 0
            skip -= 1
        elif (table or len(where) == 1) and bare.partition("=")[0] == str(where[-1]):
            return number
    return table


def _refusal(
    path: Path,
    *,
    why: str,
    advice: tuple[str, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> ConfigError:
    found = {name: fact for name, fact in (facts or {}).items() if fact}
    return ConfigError(
        f"the device file {path} cannot be used",
        why=why,
        advice=(*advice, f"${{EDITOR:-vi}} {path}"),
        metadata={"file": path, **found},
    )
