"""`cpu`: cores, instruction sets that decide the speed, and whether it is held back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, warning
from gemd.doctor.engine import cpu_library
from gemd.doctor.words import counted
from gemd.hardware import read_cpu
from gemd.hardware.files import line_of
from gemd.hardware.power import on_battery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings
    from gemd.hardware import Cpu

NAME: Final = "cpu"
AMX_MARK: Final = b"ggml_backend_amx"
"""In the symbols of a library that was compiled with it."""
_X86: Final = frozenset({"x86_64", "amd64", "i686", "i386"})
_TOLD: Final = ("avx512f", "avx2", "avx", "f16c", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
"""What ggml has kernels for, by the kernel's names."""
_OWN_GOVERNORS: Final = frozenset({"intel_pstate", "amd-pstate-epp"})
"""Drivers whose «powersave» is the ordinary one: they go by the energy preference."""
_LARGEST_LIBRARY: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """The processor.

    Attributes:
        cpu: As the sensors see it.
        threads: Of a worker.
        virtual: Whether this is a virtual machine.
        built_with_amx: Whether the engine's library uses AMX.
        governor: Of the frequency; empty if nobody governs it.
        governor_driver: Whose governor it is.
        preference: Between energy and speed; empty where there is none.
        on_battery: Whether the machine lives on its battery; None if unknown.

    """

    cpu: Cpu
    threads: int = 1
    virtual: bool = False
    built_with_amx: bool = False
    governor: str = ""
    governor_driver: str = ""
    preference: str = ""
    on_battery: bool | None = None


def examine_cpu(around: Surroundings, _: Errand) -> Diagnosis:
    """Look and judge."""
    cpu = read_cpu(around.root)
    policy = around.root / "sys/devices/system/cpu/cpu0/cpufreq"
    return check_cpu(
        CpuFacts(
            cpu=cpu,
            threads=around.settings.threads or cpu.physical_cores,
            virtual="hypervisor" in cpu.features,
            built_with_amx="amx_int8" in cpu.features and _has_mark(cpu_library(around), AMX_MARK),
            governor=line_of(policy / "scaling_governor"),
            governor_driver=line_of(policy / "scaling_driver"),
            preference=line_of(policy / "energy_performance_preference"),
            on_battery=on_battery(around.root),
        )
    )


def check_cpu(facts: CpuFacts) -> Diagnosis:
    """Judge it."""
    sets = [name for name in _TOLD if name in facts.cpu.features]
    seen = [
        f"{facts.cpu.name}, {counted(facts.cpu.physical_cores, 'core')}",
        f"{counted(facts.threads, 'thread')} for each model",
    ]
    if sets:
        seen.append(" ".join(sets))
    if facts.virtual:
        seen.append("virtual machine")
    return conclude(NAME, _findings(facts), facts=", ".join(seen))


def _findings(facts: CpuFacts) -> Iterator[Finding]:
    features, machine = facts.cpu.features, facts.cpu.architecture.lower()
    if features and machine in _X86 and "avx2" not in features:
        yield warning(
            "it has no AVX2, or the virtual machine hides it: models run several times slower",
            *(("give the virtual machine the host's CPU type",) if facts.virtual else ()),
        )
    if features and machine in {"aarch64", "arm64"} and "asimd" not in features:
        yield warning("it has no NEON (asimd): models run several times slower")
    if facts.virtual and facts.built_with_amx:
        yield warning(
            "the engine uses AMX, whose state some virtual machines lose: workers then die of an "
            "illegal instruction",
            "gemctl engine install --backend cpu --from source",
        )
    if facts.threads > facts.cpu.physical_cores:
        yield warning(
            f"the setting threads is {facts.threads}, more than the "
            f"{counted(facts.cpu.physical_cores, 'core')} that can compute at the same time",
            "unset GEMD_THREADS",
            "gemctl config show --origin",
        )
    if facts.on_battery is False:
        yield from _held_back(facts)


def _held_back(facts: CpuFacts) -> Iterator[Finding]:
    """On mains nothing is gained by a slow clock."""
    own = facts.governor_driver in _OWN_GOVERNORS
    if facts.governor == "powersave" and not own:
        yield warning(
            "its frequency governor is powersave although the machine is on mains",
            "sudo cpupower frequency-set -g schedutil",
        )
    elif own and facts.preference == "power":
        yield warning(
            "its energy preference is «power» although the machine is on mains",
            "powerprofilesctl set balanced",
        )


def _has_mark(library: Path | None, mark: bytes) -> bool:
    if library is None or library.stat().st_size > _LARGEST_LIBRARY:
        return False
    return mark in library.read_bytes()
