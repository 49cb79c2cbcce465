"""Looks at a machine for `Facts`: which programs answer, which files lie where, which GPUs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from gemd.engine.builds.facts import Cuda, Facts, Rocm, Tool, Version, Vulkan, cuda_of, version_in
from gemd.hardware import RAM, SensorBlindError, Sensors, physical_cores, read_cpu
from gemd.hardware.nvidia import load_nvml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.hardware import DeviceReading

_TIMEOUT_S: Final = 15.0
_MANAGERS: Final = (("apt", "apt-get"), ("dnf", "dnf"), ("pacman", "pacman"), ("zypper", "zypper"))
_ROCM_PACKAGES: Final = ("hip", "hipblas", "rocblas")
_CUDA_MAJORS: Final = (11, 12, 13)
_CAPABILITY: Final = re.compile(r"\d+\.\d+")
_PREFIXES: Final = ("usr/local", "usr", "opt/homebrew")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where facts are looked for.

    Attributes:
        environ: PATH and the variables that toolkits set.
        root: Where /usr, /opt and /proc are.
        platform: `sys.platform`.

    """

    environ: Mapping[str, str]
    root: Path = Path("/")
    platform: str = sys.platform

    def which(self, *names: str) -> str | None:
        """The first of these programs that is there; a name with a slash is looked for as it is."""
        path = self.environ.get("PATH", "")
        return next((found for name in names if (found := shutil.which(name, path=path))), None)

    def ask(self, *command: str) -> str | None:
        """What a program prints on both streams; None if it fails."""
        try:
            done = subprocess.run(
                command,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return None if done.returncode else done.stdout.decode("utf-8", "replace")

    def prefixes(self, *variables: str) -> list[Path]:
        """Where software is installed: what the variables name, then the usual places."""
        named = [Path(self.environ[name]) for name in variables if self.environ.get(name)]
        return [*named, *(self.root / prefix for prefix in _PREFIXES)]


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of a machine.

    Attributes:
        readings: What their sensors say.
        cuda_driver: The CUDA version that the NVIDIA driver can run; None without one.

    """

    readings: tuple[DeviceReading, ...] = ()
    cuda_driver: Version | None = None

    @property
    def backends(self) -> tuple[str, ...]:
        """What those that can be used can run; the best of the first GPU first."""
        usable = [each for each in self.readings if not each.unusable_reason]
        return tuple(dict.fromkeys(name for each in usable for name in each.backends))


def gpus_here() -> Gpus:
    """The real ones, whatever a device file plays: what is compiled runs on these."""
    try:
        sample = Sensors.of_this_machine().sensor().read({})
    except SensorBlindError:
        return Gpus()
    readings = tuple(device for device in sample.devices if device.device != RAM)
    return Gpus(readings, _cuda_driver())


def look(machine: Machine, engines_dir: Path, gpus: Gpus) -> Facts:
    """All facts of a machine.

    Args:
        machine: Where they are looked for.
        engines_dir: Whose disk counts; it need not exist.
        gpus: Its GPUs.

    """
    compiler = _compiler(machine, machine.environ.get("CXX"), "g++", "clang++", "c++")
    host = machine.environ.get("CUDAHOSTCXX")
    place = next(path for path in (engines_dir, *engines_dir.parents) if path.exists())
    return Facts(
        platform=machine.platform,
        manager=_manager(machine),
        compiler=compiler,
        host_compiler=_compiler(machine, host) if host else compiler,
        cmake=_tool(machine, "cmake", "--version"),
        xcode=machine.platform == "darwin" and machine.ask("xcode-select", "-p") is not None,
        cuda=_cuda(machine, gpus),
        rocm=_rocm(machine, gpus),
        vulkan=_vulkan(machine),
        backends=gpus.backends,
        cores=physical_cores(machine.root),
        ram_bytes=psutil.virtual_memory().total,
        free_bytes=shutil.disk_usage(place).free,
        features=read_cpu(machine.root).features,
    )


def _manager(machine: Machine) -> str:
    if machine.platform == "darwin":
        return "brew"
    return next((name for name, program in _MANAGERS if machine.which(program)), "")


def _compiler(machine: Machine, *names: str | None) -> Tool | None:
    path = machine.which(*(name for name in names if name))
    said = machine.ask(path, "--version") if path else None
    if path is None or said is None:
        return None
    first = said.partition("\n")[0]
    if "clang" in first:
        return Tool(path, version_in(first), kind="clang")
    # «g++ (Debian 12.2.0-14) 12.2.0»: the distribution's own version comes first.
    return Tool(path, version_in(first.partition(") ")[2] or first), kind="gcc")


def _tool(machine: Machine, name: str, *arguments: str) -> Tool | None:
    path = machine.which(name)
    said = machine.ask(path, *arguments) if path else None
    return Tool(path, version_in(said)) if path and said is not None else None


def _cuda(machine: Machine, gpus: Gpus) -> Cuda:
    homes = [
        machine.environ[name] for name in ("CUDA_PATH", "CUDA_HOME") if name in machine.environ
    ]
    places = [f"{home}/bin/nvcc" for home in (*homes, str(machine.root / "usr/local/cuda"))]
    named = machine.environ.get("CUDACXX")
    path = machine.which(*([named] if named else []), "nvcc", *places)
    said = machine.ask(path, "--version") if path else None
    nvcc = Tool(path, version_in(said.rpartition("V")[2])) if path and said else None
    return Cuda(
        nvcc=nvcc,
        missing_headers=_missing_cuda_headers(machine, nvcc) if nvcc else (),
        driver=gpus.cuda_driver,
        runtime=_cuda_runtime(machine),
        capabilities=tuple(
            gpu.architecture
            for gpu in gpus.readings
            if gpu.vendor == "nvidia" and _CAPABILITY.fullmatch(gpu.architecture)
        ),
    )


def _missing_cuda_headers(machine: Machine, nvcc: Tool) -> tuple[str, ...]:
    """Beside the real nvcc, which a script of the same name may hide."""
    said = machine.ask(nvcc.path, "--dryrun", "-x", "cu", "/dev/null") or ""
    found = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    top = Path(found[1].strip()) if found else Path(nvcc.path).resolve().parent.parent
    folders = [top / "include", *top.glob("targets/*/include"), machine.root / "usr/include"]
    return tuple(
        name
        for name in ("cuda_runtime.h", "cublas_v2.h")
        if not any((folder / name).is_file() for folder in folders)
    )


def _cuda_driver() -> Version | None:
    """What CUDA the driver can run; NVML tells it without a context on a GPU."""
    nvml: Any = load_nvml()
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
        try:
            return cuda_of(int(nvml.nvmlSystemGetCudaDriverVersion_v2()))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None


def _cuda_runtime(machine: Machine) -> frozenset[int]:
    program = machine.which("ldconfig", "/sbin/ldconfig")
    known = (machine.ask(program, "-p") if program else None) or ""
    for folder in machine.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder:
            known += " ".join(path.name for path in Path(folder).glob("libcu*"))
    return frozenset(
        major
        for major in _CUDA_MAJORS
        if f"libcudart.so.{major}" in known and f"libcublas.so.{major}" in known
    )


def _rocm(machine: Machine, gpus: Gpus) -> Rocm:
    home = machine.environ.get("ROCM_PATH") or str(machine.root / "opt/rocm")
    path = machine.which("hipconfig", f"{home}/bin/hipconfig")
    said = machine.ask(path, "--version") if path else None
    folders = [
        each
        for prefix in (Path(home), *machine.prefixes())
        for each in (prefix / "lib/cmake", *prefix.glob("lib/*/cmake"), prefix / "lib64/cmake")
    ]
    missing = tuple(
        name for name in _ROCM_PACKAGES if not any((each / name).is_dir() for each in folders)
    )
    targets = (one.architecture for one in gpus.readings if one.architecture.startswith("gfx"))
    # As llama.cpp's build notes have it: ROCm's own clang and root.
    llvm = machine.ask(path, "-l") if path else None
    root = machine.ask(path, "-R") if path else None
    return Rocm(
        hipconfig=Tool(path, version_in(said)) if path and said else None,
        clang=f"{llvm.strip()}/clang" if llvm else "",
        root=(root or "").strip(),
        missing=missing,
        targets=tuple(targets),
    )


def _vulkan(machine: Machine) -> Vulkan:
    prefixes = machine.prefixes("VULKAN_SDK")
    header = next(
        (file for each in prefixes if (file := each / "include/vulkan/vulkan_core.h").is_file()),
        None,
    )
    text = header.read_text(encoding="utf-8", errors="replace") if header else ""
    sdk = machine.environ.get("VULKAN_SDK")
    glslc = machine.which(*([f"{sdk}/bin/glslc"] if sdk else []), "glslc")
    return Vulkan(
        headers=vulkan_version(text),
        layer_settings="VK_EXT_layer_settings" in text,
        glslc=Tool(glslc) if glslc else None,
        spirv_headers=any(_has_spirv_headers(each) for each in prefixes),
        loader=any(_has_loader(each) for each in prefixes),
    )


def vulkan_version(header: str) -> Version | None:
    """The version that a `vulkan_core.h` defines; None if it defines none."""
    patch = re.search(r"#define VK_HEADER_VERSION (\d+)", header)
    base = re.search(r"VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION\(0, (\d+), (\d+)", header)
    return (int(base[1]), int(base[2]), int(patch[1])) if base and patch else None


def _has_spirv_headers(prefix: Path) -> bool:
    places = ("share/cmake", "lib/cmake", "lib64/cmake", "lib/*/cmake")
    return any(any(prefix.glob(f"{place}/SPIRV-Headers")) for place in places)


def _has_loader(prefix: Path) -> bool:
    places = ("lib", "lib64", "lib/*")
    names = ("libvulkan.so", "libvulkan.dylib")
    return any(any(prefix.glob(f"{place}/{name}")) for place in places for name in names)
