"""How a build of an engine is come by: the ways, their commands and what they cost. Pure.

A prebuilt wheel comes from the index of llama-cpp-python's author, where a folder holds the
wheels of one backend, or from PyTorch's; a source build is compiled for the GPUs of this
machine alone. Facts: research of the project, setup §2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gemd.engine.builds.build import PINNED
from gemd.engine.builds.facts import capability_of, dotted
from gemd.engine.builds.prerequisites import BLACKWELL, BUILD_BYTES, TURING, checks
from gemd.quantities import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.engine.builds.facts import Facts, Version

SDIST_SHA256: Final = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of llama-cpp-python 0.3.36 as it is published: what is compiled is what was read."""
TRANSFORMERS: Final = ("transformers==5.23.0", "safetensors==0.8.0")

_WHEEL_CUDA: Final = ((13, 2), (13, 0), (12, 5), (12, 4), (12, 3), (12, 2), (12, 1), (11, 8))
"""Versions that the index has a folder for, newest first."""
_TORCH_CUDA: Final = ((13, 0), (12, 8), (12, 6))
_WHEEL_ROCM: Final = (7, 2)
_WITHOUT_AMX: Final = "-mno-amx-int8"
_CORE_MINUTES: Final = {"cpu": 11, "cuda": 57, "hip": 120, "vulkan": 22, "metal": 20}
"""Minutes on one core. Measured for cpu, measured on a sample of objects for cuda with one
architecture; the others are estimates."""
_DEFAULT_ARCHITECTURES: Final = 7
"""That CUDA code is compiled for if no GPU says which one."""
_BYTES_A_JOB: Final = 2048 * MIB
"""RAM that a compiler of GPU code may take."""
_WHEEL_BYTES: Final = {"cuda": 1500 * MIB, "hip": 1000 * MIB}
_TORCH_BYTES: Final = {"cuda": 6000 * MIB, "cpu": 1300 * MIB}
_CMAKE: Final = {
    "cuda": "-DGGML_CUDA=on",
    "hip": "-DGGML_HIP=on",
    "vulkan": "-DGGML_VULKAN=on",
    "metal": "-DGGML_METAL=on",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One run of the installer.

    Attributes:
        requirements: Lines of a requirements file.
        index: URL of the index that takes the place of the user's; empty for the user's own.
        extra_index: URL of one more index.
        compiled: The package that is compiled here; every other one has to be a wheel.
        dependencies: Whether those of the packages come too.

    """

    requirements: tuple[str, ...]
    index: str = ""
    extra_index: str = ""
    compiled: str = ""
    dependencies: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a build.

    Attributes:
        kind: ``prebuilt`` or ``source``.
        engine: See `Build`.
        backend: See `Build`.
        steps: What is run, in this order.
        environ: Variables that are added for it.
        minutes: How long it takes besides the download; None if nobody knows.
        disk_bytes: What it needs while it runs.
        obstacle: Why it cannot be gone here; empty if it can.
        fix: Commands and addresses that take the obstacle away.

    """

    kind: str
    engine: str
    backend: str
    steps: tuple[Step, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    minutes: float | None = None
    disk_bytes: int = 0
    obstacle: str = ""
    fix: tuple[str, ...] = ()


def ways(
    engine: str,
    backend: str,
    facts: Facts,
    *,
    environ: Mapping[str, str],
    wheel_index: str,
    torch_index: str,
) -> tuple[Way, ...]:
    """All ways to a build, the cheapest first; those that are blocked say why.

    Args:
        engine: ``llama`` or ``diffusion``.
        backend: One of `BACKENDS`.
        facts: The machine.
        environ: Its CMAKE_ARGS come after ours, and CMAKE_BUILD_PARALLEL_LEVEL instead of ours.
        wheel_index: Parent of the folders of wheels of llama-cpp-python.
        torch_index: The same for torch.

    """
    if engine == "diffusion":
        return _diffusion(backend, facts, torch_index)
    return (_prebuilt(backend, facts, wheel_index), _source(backend, facts, environ))


def _prebuilt(backend: str, facts: Facts, index: str) -> Way:
    folder, obstacle, major = backend, "", 0
    if backend == "cuda":
        version = _newest(_WHEEL_CUDA, facts)
        folder = f"cu{version[0]}{version[1]}" if version else ""
        obstacle = "" if version else _no_wheel(facts)
        major = version[0] if version else 0
    elif backend == "hip":
        folder = f"rocm{_WHEEL_ROCM[0]}{_WHEEL_ROCM[1]}"
        rocm = facts.rocm.hipconfig
        if facts.platform != "linux" or rocm is None or rocm.version[:1] != _WHEEL_ROCM[:1]:
            obstacle = f"the wheels are for ROCm {dotted(_WHEEL_ROCM)}, which is not installed"
    elif backend == "metal" and facts.platform != "darwin":
        obstacle = "Metal is Apple's"
    wheel = Step((_pinned(),), index=f"{index}/{folder}")
    steps = [wheel]
    if major and major not in facts.cuda.runtime:
        # The wheel is linked with CUDA's run-time libraries and does not hold them.
        steps.append(Step(_cuda_runtime(major), dependencies=True))
    return Way(
        "prebuilt",
        "llama",
        backend,
        tuple(steps),
        disk_bytes=_WHEEL_BYTES.get(backend, 200 * MIB),
        obstacle=obstacle,
    )


def _cuda_runtime(major: int) -> tuple[str, ...]:
    """NVIDIA's own packages of libcudart and libcublas for CUDA `major`."""
    suffix = "-cu12" if major == 12 else "" if major > 12 else "-cu11"  # noqa: PLR2004 - names
    return tuple(f"nvidia-{name}{suffix}=={major}.*" for name in ("cuda-runtime", "cublas"))


def _no_wheel(facts: Facts) -> str:
    driver = facts.cuda.driver
    if driver is None:
        return "there is no NVIDIA driver that says which CUDA it can run"
    gpus = ", ".join(facts.cuda.capabilities)
    return f"no wheel is for CUDA {dotted(driver)} and compute capability {gpus or 'unknown'}"


def _newest(versions: tuple[Version, ...], facts: Facts) -> Version | None:
    """The newest CUDA that the driver can run and that knows every GPU."""
    driver = facts.cuda.driver
    if driver is None:
        return None
    capabilities = [capability_of(text) for text in facts.cuda.capabilities]
    for version in versions:
        if version > driver:
            continue
        if version >= (13, 0) and any(each < TURING for each in capabilities):
            continue
        if version < (12, 8) and any(each >= BLACKWELL for each in capabilities):
            continue
        return version
    return None


def _source(backend: str, facts: Facts, environ: Mapping[str, str]) -> Way:
    failed = [check for check in checks(backend, facts) if not check.passed]
    jobs = _jobs(backend, facts, environ.get("CMAKE_BUILD_PARALLEL_LEVEL", ""))
    variables = {
        "CMAKE_ARGS": " ".join([*_cmake_arguments(backend, facts), environ.get("CMAKE_ARGS", "")]),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
    }
    variables["CMAKE_ARGS"] = variables["CMAKE_ARGS"].strip()
    if backend == "cuda" and facts.cuda.nvcc:
        # CMake looks in fewer places, and may find another one than was checked.
        variables["CUDACXX"] = facts.cuda.nvcc.path
    if backend == "hip":
        variables |= {"HIPCXX": facts.rocm.clang, "HIP_PATH": facts.rocm.root}
    minutes: float = _CORE_MINUTES[backend]
    if backend == "cuda" and not facts.cuda.capabilities:
        minutes *= _DEFAULT_ARCHITECTURES
    return Way(
        "source",
        "llama",
        backend,
        (Step((f"{_pinned()} --hash=sha256:{SDIST_SHA256}",), compiled="llama-cpp-python"),),
        environ={name: value for name, value in variables.items() if value},
        minutes=minutes / max(1, min(jobs, facts.cores)),
        disk_bytes=BUILD_BYTES[backend],
        obstacle="; ".join(f"{check.name}: {check.found}" for check in failed),
        fix=tuple(dict.fromkeys(command for check in failed for command in check.fix)),
    )


def _jobs(backend: str, facts: Facts, wanted: str) -> int:
    """Compilers at once: as many as wanted, or one a core as far as RAM reaches for GPU code."""
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    if backend not in {"cuda", "hip"} or not facts.ram_bytes:
        return max(1, facts.cores)
    return max(1, min(facts.cores, facts.ram_bytes // _BYTES_A_JOB))


def _cmake_arguments(backend: str, facts: Facts) -> list[str]:
    chosen = [_CMAKE[backend]] if backend in _CMAKE else []
    if backend == "cuda" and facts.cuda.capabilities:
        numbers = sorted({text.replace(".", "") for text in facts.cuda.capabilities}, key=int)
        chosen.append(f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(numbers)}")
    if backend == "hip" and facts.rocm.targets:
        chosen.append(f"-DGPU_TARGETS={';'.join(sorted(set(facts.rocm.targets)))}")
    if "amx_int8" in facts.features:
        # This llama.cpp sets up the tiles once for each thread, and some virtual machines lose
        # them: the worker then dies of an illegal instruction.
        chosen += [f"-DCMAKE_C_FLAGS={_WITHOUT_AMX}", f"-DCMAKE_CXX_FLAGS={_WITHOUT_AMX}"]
    return chosen


def _diffusion(backend: str, facts: Facts, index: str) -> tuple[Way, ...]:
    version = PINNED["diffusion"]
    folder, obstacle = "cpu", ""
    if backend == "cuda":
        cuda = _newest(_TORCH_CUDA, facts)
        folder = f"cu{cuda[0]}{cuda[1]}" if cuda else ""
        obstacle = "" if cuda else _no_wheel(facts)
    elif backend != "cpu":
        obstacle = "DiffusionGemma runs on NVIDIA GPUs, and on the processor for tests"
    # The label names the build, so that no other index's torch can take its place.
    torch = f"torch=={version}+{folder}" if folder else f"torch=={version}"
    here = Step((torch, *TRANSFORMERS), extra_index=f"{index}/{folder}", dependencies=True)
    # The user's own index has one torch for each platform: without CUDA on macOS, with CUDA 13
    # on Linux, where it is as good on the processor.
    plain = Step((f"torch=={version}", *TRANSFORMERS), dependencies=True)
    size = _TORCH_BYTES.get(backend, 0)
    driver = facts.cuda.driver
    unfit = obstacle
    if backend == "cuda" and (driver is None or driver < (13, 0)):
        unfit = "the usual torch is for CUDA 13, which the driver cannot run"
    first = Way("prebuilt", "diffusion", backend, (here,), disk_bytes=size, obstacle=obstacle)
    second = Way("prebuilt", "diffusion", backend, (plain,), disk_bytes=size, obstacle=unfit)
    return (second,) if facts.platform == "darwin" else (first, second)


def _pinned() -> str:
    return f"llama-cpp-python=={PINNED['llama']}"
