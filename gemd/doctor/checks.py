"""All checks, in the order of their rows: from what everything else needs to what is a luxury."""

from __future__ import annotations

from typing import Final

from gemd.doctor import (
    catalogue,
    cpu,
    daemon,
    directories,
    disk_space,
    engine,
    gpu_driver,
    gpu_memory,
    hub,
    index,
    limits,
    memory,
    models,
    python,
    service,
    settings,
    sockets,
)
from gemd.doctor.examination import Check

_MINUTES: Final = 60.0
_NETWORK_S: Final = 20.0
"""Their own limits are shorter; name resolution has the system's patience."""
_DISK: Final = "a disk or network file system does not answer"
_DRIVER: Final = "a driver does not answer"
_NAMES: Final = "the name of a server cannot be resolved"
_DISK_FIXES: Final = ("df -h", "sudo dmesg | tail")
_DRIVER_FIXES: Final = ("sudo dmesg | tail", "sudo reboot")
_NAME_FIXES: Final = ("resolvectl status", "cat /etc/resolv.conf")

CHECKS: Final = (
    Check(settings.NAME, settings.examine_settings, hangs=_DISK, fixes=_DISK_FIXES),
    Check(directories.NAME, directories.examine_directories, hangs=_DISK, fixes=_DISK_FIXES),
    Check(disk_space.NAME, disk_space.examine_disk_space, hangs=_DISK, fixes=_DISK_FIXES),
    Check(sockets.NAME, sockets.examine_socket),
    Check(daemon.NAME, daemon.examine_daemon, hangs="the daemon does not answer"),
    Check(service.NAME, service.examine_service, hangs=_DISK, fixes=_DISK_FIXES),
    Check(
        python.NAME,
        python.examine_python,
        thorough_limit_s=2 * _MINUTES,
        hangs=_DISK,
        fixes=_DISK_FIXES,
    ),
    Check(
        engine.NAME,
        engine.examine_engine,
        thorough_limit_s=10 * _MINUTES,
        hangs="a driver or an engine does not answer",
        fixes=_DRIVER_FIXES,
    ),
    Check(gpu_driver.NAME, gpu_driver.examine_gpu_driver, hangs=_DRIVER, fixes=_DRIVER_FIXES),
    Check(gpu_memory.NAME, gpu_memory.examine_gpu_memory, hangs=_DRIVER, fixes=_DRIVER_FIXES),
    Check(memory.NAME, memory.examine_memory, hangs=_DRIVER, fixes=_DRIVER_FIXES),
    Check(cpu.NAME, cpu.examine_cpu, hangs=_DRIVER, fixes=_DRIVER_FIXES),
    Check(catalogue.NAME, catalogue.examine_catalogue, hangs=_DISK, fixes=_DISK_FIXES),
    Check(
        models.NAME,
        models.examine_models,
        thorough_limit_s=60 * _MINUTES,
        hangs=_DISK,
        fixes=_DISK_FIXES,
    ),
    Check(hub.NAME, hub.examine_hub, limit_s=_NETWORK_S, hangs=_NAMES, fixes=_NAME_FIXES),
    Check(index.NAME, index.examine_index, limit_s=_NETWORK_S, hangs=_NAMES, fixes=_NAME_FIXES),
    Check(limits.NAME, limits.examine_limits),
)
"""Names are part of the API."""
