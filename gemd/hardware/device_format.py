"""The format of a device file: a machine that is not here, for a plan or for a rehearsal.

The files of ``profiles/devices`` describe machines that are sold, and `gemctl plan --on` plans for
them. As the setting ``devices_file`` any such file takes the place of this machine's GPUs; it is
read again whenever it changes, and may be rewritten while the daemon runs: that is how «another
program takes 6 GB» is rehearsed. All sizes are text with a unit::

    display_name = "Desktop with an RTX 4090"   # for listings; empty if left out

    [[gpu]]                     # one table for each GPU
    name = "NVIDIA GeForce RTX 4090"
    capacity = "24GiB"          # of a unified one the working set; 0 of an integrated one
    id = "gpu0"                 # gpu0, gpu1, ... by position if left out
    vendor = "nvidia"           # nvidia, amd, intel, apple or other (other)
    kind = "discrete"           # discrete, integrated or unified (discrete)
    others = "1.5GiB"           # what other programs hold (0B)
    drives_display = true       # unknown if left out
    compute_capability = "8.9"  # or gfx1100, ...; unknown if left out
    bandwidth = "1008GB"        # a second; unknown if left out
    cores = 128                 # multiprocessors or compute units; unknown if left out
    features = ["bf16", "fp8"]  # by vendor and compute capability if left out
    backends = ["cuda"]         # best first; by vendor and compute capability if left out
    driver = "570.86.16"        # version of its driver; unknown if left out
    scale = 100.0               # a worker holds so many times its real resident size (1.0)
    hidden_processes = false    # true: the driver does not tell who holds what
    lost = false                # true: it has fallen off the bus

    [cpu]                       # without this table the processor is this machine's
    name = "AMD Ryzen 9 7950X"
    architecture = "x86_64"     # this machine's if left out
    cores = 16                  # physical ones; this machine's if left out
    features = ["avx2"]         # by the kernel's names; this machine's if left out
    platform = "linux"          # or darwin (linux)

    [ram]                       # without this table RAM is this machine's
    capacity = "64GiB"          # this machine's if left out
    others = "12GiB"            # what other programs hold (0B)
    bandwidth = "89.6GB"        # a second; unknown if left out

    [power]
    on_battery = true           # without this table it is this machine's

In a rehearsal what workers hold is real: the resident size of each process, on the GPU that it was
placed on and in RAM. Where it does not fit beside `others`, `others` gives way, and nothing is
free. A unified GPU has its memory in RAM: what either of them holds, the other one lacks. The
processor is only shown; workers compute on the real one, with its threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gemd.hardware.abilities import backends_of, features_of
from gemd.hardware.readings import DeviceKind
from gemd.quantities import format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS: Final = {
    "discrete": DeviceKind.DISCRETE_GPU,
    "integrated": DeviceKind.INTEGRATED_GPU,
    "unified": DeviceKind.UNIFIED,
}

_MOST_CORES: Final = 1_000_000
"""More than any device has; a message holds no number above 2^31."""


def _size(value: object) -> int:
    if not isinstance(value, str):
        # A number in the file has no unit; guessing one would be wrong half of the time.
        raise ValueError("has to be text with a unit, in quotes")  # noqa: TRY004 -- pydantic's way
    return parse_bytes(value)


Size = Annotated[int, BeforeValidator(_size)]
Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Words = Annotated[tuple[Word, ...], Field(strict=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SimulatedGpu(_Table):
    """One `[[gpu]]` of a device file; see the module."""

    name: str = Field(min_length=1)
    capacity: Size | None = Field(default=None, gt=0)
    id: str = Field(default="", pattern=r"^(gpu[0-9]{1,3})?$")
    vendor: Literal["nvidia", "amd", "intel", "apple", "other"] = "other"
    kind: Literal["discrete", "integrated", "unified"] = "discrete"
    others: Size = 0
    drives_display: bool | None = None
    compute_capability: str = ""
    bandwidth: Size | None = Field(default=None, gt=0)
    cores: int = Field(default=0, ge=0, le=_MOST_CORES)
    features: Words | None = None
    backends: Words | None = None
    driver: str = ""
    scale: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False)
    hidden_processes: bool = False
    lost: bool = False

    @model_validator(mode="after")
    def _fits(self) -> SimulatedGpu:
        if self.capacity is None and self.kind != "integrated":
            raise ValueError(f"has no capacity, which a {self.kind} GPU needs")
        if self.others > self.capacity_bytes:
            raise ValueError(_more(self.others, self.capacity_bytes))
        return self

    @property
    def capacity_bytes(self) -> int:
        """Memory that it has; 0 for an integrated one without any of its own."""
        return self.capacity or 0

    @property
    def device_kind(self) -> DeviceKind:
        """Where its memory is."""
        return _KINDS[self.kind]

    @property
    def known_features(self) -> frozenset[str]:
        """Those of the file, or of its architecture."""
        if self.features is None:
            return features_of(self.vendor, self.compute_capability)
        return frozenset(self.features)

    @property
    def known_backends(self) -> tuple[str, ...]:
        """Those of the file, or of its vendor and architecture."""
        if self.backends is None:
            return backends_of(self.vendor, self.compute_capability)
        return self.backends


class SimulatedCpu(_Table):
    """The `[cpu]` of a device file."""

    name: str = Field(min_length=1)
    architecture: str = ""
    cores: int = Field(default=0, ge=0, le=_MOST_CORES)
    features: Words = ()
    platform: Literal["linux", "darwin"] = "linux"


class SimulatedRam(_Table):
    """The `[ram]` of a device file."""

    capacity: Size | None = Field(default=None, gt=0)
    others: Size = 0
    bandwidth: Size | None = Field(default=None, gt=0)

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

    display_name: str = ""
    gpu: tuple[SimulatedGpu, ...] = Field(default=(), strict=False)
    cpu: SimulatedCpu | None = None
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

    def others_in_ram(self) -> int:
        """What other programs hold of RAM; what they hold of a unified GPU is part of it."""
        unified = [gpu.others for gpu in self.gpu if gpu.kind == "unified"]
        return max([0 if self.ram is None else self.ram.others, *unified])

    def others_on(self, gpu: SimulatedGpu, *, beside: int = 0) -> int:
        """What other programs keep of a GPU; of a unified one also what RAM has not left.

        Args:
            gpu: One of these.
            beside: Bytes of RAM that workers hold, of those that are not on the GPU.

        """
        if gpu.kind != "unified" or self.ram is None or self.ram.capacity is None:
            return gpu.others
        beyond = self.ram.capacity - gpu.capacity_bytes
        left = self.others_in_ram() + beside - beyond
        return min(gpu.capacity_bytes, max(gpu.others, left))


TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "gpu": SimulatedGpu,
    "cpu": SimulatedCpu,
    "ram": SimulatedRam,
    "power": SimulatedPower,
}
"""The tables of a file by their names."""


def _more(others: int, capacity: int) -> str:
    return f"has others of {format_bytes(others)}, more than its capacity {format_bytes(capacity)}"
