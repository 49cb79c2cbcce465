"""`gpu-driver`: for each GPU on the bus, whether its driver works and this user may use it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor import nvidia_driver
from gemd.doctor.diagnosis import CannotCheckError, conclude, failure, warning
from gemd.doctor.pci import adapters, is_container, nodes
from gemd.hardware.intel import INTEGRATED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.nvidia_driver import NvidiaFacts
    from gemd.doctor.pci import Adapter, Node
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "gpu-driver"
_NAMES: Final = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}
_GIVEN_AWAY: Final = frozenset({"vfio-pci", "pci-stub"})
"""Drivers of cards that virtual machines get: here they need no driver of their vendor."""


@dataclass(frozen=True, slots=True)
class GpuDriverFacts:
    """The GPUs of this machine and their drivers.

    Attributes:
        platform: `sys.platform`.
        machine: Architecture, such as ``arm64``.
        adapters: On the PCI bus.
        nvidia: Of NVIDIA's driver; None where it has no card and no driver.
        kfd: What ROCm computes through; None if it is not there.
        render: What Vulkan computes through, of all vendors.
        container: Whether this is a container.
        simulated: Whether a device file takes the place of all GPUs.

    """

    platform: str
    machine: str = "x86_64"
    adapters: tuple[Adapter, ...] = ()
    nvidia: NvidiaFacts | None = None
    kfd: Node | None = None
    render: tuple[Node, ...] = ()
    container: bool = False
    simulated: bool = False


def examine_gpu_driver(around: Surroundings, _: Errand) -> Diagnosis:
    """Look at bus, device files and NVML, and judge."""
    root = around.root
    found = adapters(root)
    return check_gpu_driver(
        GpuDriverFacts(
            platform=around.platform,
            machine=platform.machine(),
            adapters=found,
            nvidia=nvidia_driver.gather(
                root,
                present=any(a.vendor == "nvidia" and a.driver not in _GIVEN_AWAY for a in found),
            ),
            kfd=next(iter(nodes(root, "kfd")), None),
            render=nodes(root, "dri/renderD*"),
            container=is_container(root),
            simulated=around.settings.devices_file is not None,
        )
    )


def check_gpu_driver(facts: GpuDriverFacts) -> Diagnosis:
    """Judge them.

    Raises:
        CannotCheckError: There is no GPU here.

    """
    made_up = "the setting devices_file makes gemd use made-up GPUs" if facts.simulated else ""
    if facts.platform == "darwin":
        return _on_a_mac(facts, made_up)
    if not facts.adapters and facts.nvidia is None:
        raise CannotCheckError(
            made_up or "no GPU of NVIDIA, AMD or Intel is on the bus; models run on the processor"
        )
    seen = [_shown(vendor, facts) for vendor in _NAMES if _present(vendor, facts)]
    return conclude(NAME, _findings(facts), facts="; ".join(filter(None, [*seen, made_up])))


def _on_a_mac(facts: GpuDriverFacts, made_up: str) -> Diagnosis:
    findings = []
    if facts.machine != "arm64":
        findings.append(
            warning(
                f"this Mac has no Apple silicon ({facts.machine}), or Python runs under Rosetta: "
                "models run on the processor",
                "arch -arm64 python3 -c 'import platform; print(platform.machine())'",
            )
        )
    seen = "Metal comes with macOS" if not findings else ""
    return conclude(NAME, findings, facts="; ".join(filter(None, [seen, made_up])))


def _present(vendor: str, facts: GpuDriverFacts) -> bool:
    on_bus = any(adapter.vendor == vendor for adapter in facts.adapters)
    return on_bus or (vendor == "nvidia" and facts.nvidia is not None)


def _shown(vendor: str, facts: GpuDriverFacts) -> str:
    cards = [adapter for adapter in facts.adapters if adapter.vendor == vendor]
    drivers = sorted({adapter.driver or "no driver" for adapter in cards})
    text = f"{_NAMES[vendor]}: {len(cards)} on the bus ({', '.join(drivers)})" if cards else ""
    if vendor == "nvidia" and facts.nvidia is not None:
        return ", ".join(filter(None, [text, nvidia_driver.shown(facts.nvidia)]))
    return text


def _findings(facts: GpuDriverFacts) -> Iterator[Finding]:
    if facts.nvidia is not None:
        bound = sum(each.driver == "nvidia" for each in facts.adapters)
        yield from nvidia_driver.findings(facts.nvidia, container=facts.container, bound=bound)
    if _present("amd", facts):
        yield from _of_amd(facts)
    if _present("intel", facts):
        # No model is placed on integrated graphics, so that nothing is wrong with them.
        cards = [each for each in facts.adapters if each.vendor == "intel" and not _is_part(each)]
        if cards:
            yield from _of_mesa("Intel", cards, ("i915", "xe"), facts)


def _is_part(adapter: Adapter) -> bool:
    """Whether it is a part of an Intel processor."""
    return adapter.address.startswith(INTEGRATED)


def _of_amd(facts: GpuDriverFacts) -> Iterator[Finding]:
    cards = [adapter for adapter in facts.adapters if adapter.vendor == "amd"]
    yield from _of_mesa("AMD", cards, ("amdgpu",), facts)
    if not any(card.driver == "amdgpu" for card in cards):
        return
    if facts.kfd is None:
        yield warning(
            "AMD: there is no /dev/kfd, so that ROCm cannot compute; Vulkan can",
            "docker run --device /dev/kfd --device /dev/dri …"
            if facts.container
            else "sudo modprobe amdgpu",
        )
    elif not facts.kfd.usable:
        yield _no_access("AMD", (facts.kfd,), facts)


def _of_mesa(
    vendor: str, cards: Sequence[Adapter], drivers: Sequence[str], facts: GpuDriverFacts
) -> Iterator[Finding]:
    """What is wrong with a GPU whose driver is part of the kernel."""
    bound = [card for card in cards if card.driver]
    if not bound:
        yield failure(
            f"{vendor}: no driver is bound to {cards[0].address}",
            *(f"sudo modprobe {driver}" for driver in drivers),
            "sudo dmesg | grep -iE 'drm|gpu'",
        )
        return
    foreign = [card for card in bound if card.driver not in drivers]
    for card in foreign:
        yield warning(
            f"{vendor}: {card.address} is bound to {card.driver} and cannot compute; "
            f"{' or '.join(drivers)} could",
            f"lspci -nnk -s {card.address}",
        )
    if len(foreign) == len(bound):
        return
    if not facts.render:
        yield failure(
            f"{vendor}: there is no /dev/dri/renderD*",
            "docker run --device /dev/dri …" if facts.container else f"sudo modprobe {drivers[0]}",
        )
    elif not any(each.usable for each in facts.render):
        yield _no_access(vendor, facts.render, facts)


def _no_access(vendor: str, refused: Sequence[Node], facts: GpuDriverFacts) -> Finding:
    paths = ", ".join(each.path for each in refused)
    first = refused[0]
    if first.member:
        return failure(
            f"{vendor}: this login may not use {paths}; the user is in the group {first.group} "
            "by now",
            "log out and in again",
        )
    if facts.container:
        return failure(
            f"{vendor}: this container may not use {paths}",
            f"docker run --group-add {first.group} …",
        )
    groups = ",".join(sorted({each.group for each in refused} | {"video"}))
    return failure(
        f"{vendor}: this user may not use {paths} (group {first.group})",
        f'sudo usermod -aG {groups} "$(id -un)"   (then log out and in again)',
    )
