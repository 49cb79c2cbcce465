"""The interpreter, its packages, the service, the engines, the processor."""

from __future__ import annotations

import plistlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemd.doctor import Result, python
from gemd.doctor.cpu import CpuFacts, check_cpu, examine_cpu
from gemd.doctor.engine import EngineFacts, check_engine, examine_engine
from gemd.doctor.python import Dependency, PythonFacts, check_python, examine_python
from gemd.doctor.service import ServiceFacts, check_service, examine_service
from gemd.engine.builds.build import Build
from gemd.engine.builds.verification import Trial, Verdict
from gemd.errors import EngineMissingError
from gemd.hardware import Cpu
from tests.support.doctoring import made, surroundings, write
from tests.support.sensing import FakeSensor

PYTHON = PythonFacts("/env/bin/python", "3.12.1", wanted=">=3.11")
CPU = CpuFacts(Cpu("Ryzen", 8, frozenset({"avx2", "avx512f"}), "x86_64"), threads=8)
BUNDLED = Build("llama", "cpu", "0.3.36", commit="abc")
CUDA = replace(BUNDLED, backend="cuda", path=Path("/e/llama-cuda"), installed="prebuilt")


def test_this_environment_is_sound(tmp_path: Path) -> None:
    """Every dependency is there; a thorough look imports them, and not in this process."""
    for thorough in (False, True):
        found = made(examine_python, surroundings(tmp_path), thorough=thorough)
        assert found.result is Result.OK, found
        assert sys.executable in found.detail


def test_a_module_that_cannot_be_imported_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By importing it in another process, which may also die of it."""
    write(tmp_path / "broken_here.py", "raise RuntimeError('two\\nlines')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(python, "MODULES", {"broken-here": "broken_here"})
    assert python._import_all([("broken-here", "")]) == {"broken_here": "RuntimeError: two lines"}
    write(tmp_path / "broken_here.py", "import os\nos.abort()")
    assert python._import_all([("broken-here", "")]) == {
        "broken_here": "the process that imported all ended with -6"
    }


@pytest.mark.parametrize(
    "changes,result,says,fix",
    [
        ({}, Result.OK, "CPython 3.12.1, 64 bits", ""),
        ({"version": "3.10.2"}, Result.FAILED, "3.10.2 is not within >=3.11", "uv tool install"),
        ({"bits": 32}, Result.FAILED, "Python has 32 bits", "install a 64-bit Python"),
        ({"installed": False}, Result.WARNING, "not installed as a distribution", "pip install"),
        (
            {"dependencies": (Dependency("psutil", ">=7"),)},
            Result.FAILED,
            "psutil is not installed",
            "/env/bin/python -m pip install 'psutil>=7'",
        ),
        (
            {"dependencies": (Dependency("psutil", ">=7", "6.1"),)},
            Result.WARNING,
            "psutil 6.1 is not within >=7",
            "/env/bin/python -m pip install 'psutil>=7'",
        ),
        (
            {"dependencies": (Dependency("grpcio", "", "1.80", problem="ImportError: GLIBC"),)},
            Result.FAILED,
            "grpcio 1.80 cannot be imported: ImportError: GLIBC",
            "/env/bin/python -m pip install --force-reinstall grpcio",
        ),
        (
            {"dependencies": (Dependency("grpcio", "<2"),), "has_pip": False},
            Result.FAILED,
            "grpcio is not installed",
            "uv pip install --python /env/bin/python 'grpcio<2'",
        ),
        (
            {"dependencies": (Dependency("grpcio", "", "1.80", importable=False),)},
            Result.FAILED,
            "its module cannot be found",
            "/env/bin/python -m pip install --force-reinstall grpcio",
        ),
    ],
)
def test_python_and_its_packages(
    changes: dict[str, Any], result: Result, says: str, fix: str
) -> None:
    """Each fault has the command of this very interpreter."""
    found = check_python(replace(PYTHON, **changes))
    assert found.result is result
    assert says in found.detail
    assert any(fix in each for each in found.fixes or ("",))


UNIT = "[Unit]\nDescription=x\n[Service]\nEnvironment=A=1\nEnvironment=B=2\nExecStart=-{}\n"


def test_a_unit_of_systemd_is_found(tmp_path: Path) -> None:
    """What it starts, and whether it is enabled; without one nothing is wrong."""
    around = surroundings(tmp_path, root=tmp_path)
    assert made(examine_service, around).result is Result.SKIPPED
    unit = tmp_path / "config/systemd/user/gemd.service"
    program = write(tmp_path / "bin/gemd")
    write(unit, UNIT.format(f'"{program}" --log-level info'))
    found = made(examine_service, around)
    assert (found.result, found.detail) == (
        Result.OK,
        f"systemd user unit {unit}, not enabled",
    )
    wants = tmp_path / "config/systemd/user/default.target.wants"
    wants.mkdir()
    (wants / "gemd.service").symlink_to(unit)
    assert made(examine_service, around).detail.endswith("starts at login")
    program.unlink()
    found = made(examine_service, around)
    assert found.result is Result.WARNING
    assert f"it starts {program}, which is not there" in found.detail
    assert found.fixes == ("gemctl service install",)
    write(unit, "ExecStart=/x\n")
    found = made(examine_service, around)
    assert "it cannot be read" in found.detail
    assert found.fixes == (f"ls -l {unit}", "gemctl service install --force")
    write(unit, UNIT.format("%h/.local/bin/gemd"))
    assert made(examine_service, around).result is Result.OK


def test_a_unit_of_the_system_is_no_business_of_gemctl(tmp_path: Path) -> None:
    """One that a distribution or an administrator put there is mended with an editor."""
    around = surroundings(tmp_path, root=tmp_path)
    unit = tmp_path / "etc/systemd/user/gemd.service"
    write(unit, UNIT.format("/no/such/gemd"))
    fixes = made(examine_service, around).fixes
    assert fixes == (f"${{EDITOR:-vi}} {unit}", "systemctl --user daemon-reload")


def test_a_user_without_a_name_has_a_service_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that gives a number and no more."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    write(tmp_path / "config/systemd/user/gemd.service", UNIT.format("%h/gemd"))
    assert made(examine_service, surroundings(tmp_path, root=tmp_path)).result is Result.OK


@pytest.mark.parametrize(
    "content",
    [
        b"no plist",
        b"<plist version='1.0'><dict>",
        b"<plist version='1.0'><dict><date>soon</date></dict></plist>",
        b"<plist version='1.0'><array/></plist>",
        b"bplist00\xff",
    ],
)
def test_a_damaged_agent_is_told_of(content: bytes, tmp_path: Path) -> None:
    """Cut off, of another kind, or none at all: with the command that writes it anew."""
    around = surroundings(tmp_path, root=tmp_path / "root", platform="darwin")
    agent = write(tmp_path / "Library/LaunchAgents/io.gemd.daemon.plist")
    agent.write_bytes(content)
    found = made(examine_service, around)
    assert found.result is Result.WARNING
    assert "it cannot be read: " in found.detail
    assert found.fixes == (f"ls -l {agent}", "gemctl service install --force")


@pytest.mark.parametrize("words", [[], "gemd", None, [7], {"a": "/gemd"}])
def test_an_agent_without_a_program_is_not_judged(words: object, tmp_path: Path) -> None:
    """What it starts is unknown then."""
    around = surroundings(tmp_path, root=tmp_path / "root", platform="darwin")
    agent = write(tmp_path / "Library/LaunchAgents/io.gemd.daemon.plist")
    content = {"Label": "gemd"} | ({} if words is None else {"ProgramArguments": words})
    agent.write_bytes(plistlib.dumps(content))
    assert made(examine_service, around).result is Result.OK


def test_an_agent_of_launchd_is_found(tmp_path: Path) -> None:
    """Also one that starts something that is gone."""
    around = surroundings(tmp_path, root=tmp_path / "root", platform="darwin")
    assert made(examine_service, around).result is Result.SKIPPED
    agent = write(tmp_path / "Library/LaunchAgents/org.gemd.plist")
    content = {"Label": "org.gemd", "ProgramArguments": ["/no/such/gemd"], "RunAtLoad": True}
    agent.write_bytes(plistlib.dumps(content))
    found = made(examine_service, around)
    assert (found.result, found.fixes) == (Result.WARNING, (f"${{EDITOR:-vi}} {agent}",))
    assert "starts at login" in found.detail
    agent.write_bytes(b"no plist")
    assert "it cannot be read" in made(examine_service, around).detail


def test_a_service_may_start_at_boot() -> None:
    """Or nobody knows."""
    facts = ServiceFacts(Path("/u"), enabled=True, lingers=True)
    assert check_service(facts).detail.endswith("starts at boot")
    assert check_service(replace(facts, enabled=None)).detail.endswith("is unknown")


def test_the_engine_of_this_environment_is_found(tmp_path: Path) -> None:
    """Without importing it; an engine that is wanted and not there has its command."""
    imported = "llama_cpp" in sys.modules
    found = made(examine_engine, surroundings(tmp_path))
    assert ("llama_cpp" in sys.modules) is imported
    assert (found.result, found.fixes) == (Result.OK, ())
    assert "workers get llama 0.3.36 for cpu" in found.detail
    wanted = surroundings(tmp_path, environ={"GEMD_ENGINE_BACKEND": "cuda"})
    found = made(examine_engine, wanted)
    assert (found.result, found.fixes[0]) == (
        Result.WARNING,
        "gemctl engine install --backend cuda",
    )


def test_a_thorough_look_runs_the_engine(tmp_path: Path) -> None:
    """In a process of its own, with a model whose answer is known."""
    found = made(examine_engine, surroundings(tmp_path), thorough=True)
    assert found.result is Result.OK, found
    assert "bundled ran and answered as it should" in found.detail


def test_a_broken_engine_is_named(tmp_path: Path) -> None:
    """A folder that holds no engine, one that answers wrongly, and none at all."""
    around = surroundings(tmp_path)
    write(around.paths.engines_dir / "llama-cuda-0.3.36-cp311" / "engine.json", "{}")
    found = made(examine_engine, around)
    assert found.result is Result.WARNING
    assert "llama-cuda-0.3.36-cp311 cannot be used: engine.json" in found.detail
    assert "gemctl engine install --backend cuda" in found.fixes
    wrong = Verdict(Trial(), problems=("it answers wrongly",), notes=())
    facts = EngineFacts((CUDA, BUNDLED), CUDA, verdicts=((CUDA, wrong),))
    found = check_engine(facts)
    assert found.result is Result.FAILED
    assert found.detail == (
        "llama-cuda: it answers wrongly; workers get llama 0.3.36 for cuda (prebuilt); "
        "also there: llama 0.3.36 for cpu (bundled)"
    )
    assert found.fixes == ("gemctl engine install --backend cuda --force",)
    strange = replace(CUDA, backend="unknown", broken="it says nothing")
    assert check_engine(EngineFacts((strange,))).fixes == ("rm -r /e/llama-cuda",)
    missing = EngineMissingError("there is none", advice=("install it",))
    assert check_engine(EngineFacts(missing=missing)).result is Result.FAILED


def test_the_processor_of_this_machine_is_read(tmp_path: Path) -> None:
    """Its cores and the threads that a model gets."""
    found = made(examine_cpu, surroundings(tmp_path, environ={"GEMD_THREADS": "1"}))
    assert "1 thread for each model" in found.detail
    found = made(examine_cpu, surroundings(tmp_path, environ={"GEMD_THREADS": "1024"}))
    assert found.result is Result.WARNING
    assert "gemctl config show --origin" in found.fixes


def features(*names: str, machine: str = "x86_64") -> Cpu:
    """A processor with these."""
    return Cpu("CPU", 8, frozenset(names), machine)


@pytest.mark.parametrize(
    "changes,result,says",
    [
        ({}, Result.OK, "Ryzen, 8 cores, 8 threads for each model, avx512f avx2"),
        ({"cpu": features("sse2")}, Result.WARNING, "it has no AVX2"),
        ({"cpu": features()}, Result.OK, "CPU, 8 cores"),
        ({"cpu": features("fp", machine="aarch64")}, Result.WARNING, "it has no NEON"),
        ({"cpu": features("asimd", machine="aarch64")}, Result.OK, "asimd"),
        ({"virtual": True, "built_with_amx": True}, Result.WARNING, "illegal instruction"),
        ({"virtual": True}, Result.OK, "virtual machine"),
        (
            {"governor": "powersave", "governor_driver": "acpi-cpufreq", "on_battery": False},
            Result.WARNING,
            "its frequency governor is powersave",
        ),
        (
            {"governor": "powersave", "governor_driver": "acpi-cpufreq", "on_battery": True},
            Result.OK,
            "Ryzen",
        ),
        (
            {"governor": "powersave", "governor_driver": "intel_pstate", "on_battery": False},
            Result.OK,
            "Ryzen",
        ),
        (
            {"governor_driver": "intel_pstate", "preference": "power", "on_battery": False},
            Result.WARNING,
            "its energy preference is «power»",
        ),
        ({"threads": 16}, Result.WARNING, "the setting threads is 16, more than the 8 cores"),
    ],
)
def test_the_processor(changes: dict[str, Any], result: Result, says: str) -> None:
    """Missing instruction sets, held back on mains, or more threads than cores."""
    found = check_cpu(replace(CPU, **changes))
    assert found.result is result
    assert says in found.detail


def test_governors_are_read_from_the_kernel(tmp_path: Path) -> None:
    """Where a machine has no battery, it is on mains."""
    policy = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    write(policy / "scaling_governor", "powersave\n")
    write(policy / "scaling_driver", "acpi-cpufreq\n")
    (tmp_path / "sys/class/power_supply").mkdir(parents=True)
    found = made(examine_cpu, surroundings(tmp_path, root=tmp_path))
    assert "sudo cpupower frequency-set -g schedutil" in found.fixes


def test_a_blind_sensor_hides_no_engine(tmp_path: Path) -> None:
    """Then nothing is known of GPUs, and the processor's is what there is."""
    around = surroundings(tmp_path, sample=lambda: FakeSensor(blind="hung").read({}))
    assert made(examine_engine, around).result is Result.OK
