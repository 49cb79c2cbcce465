"""``python -m gemd.worker.diffusion.selftest.parts``: one part after the other, line by line.

Each line is a JSON object: ``part`` names the part, ``state`` is ``begun``, ``known`` or ``done``,
and all else is what is known of it now. The last line's part is ``end``; where it is missing, this
process has died or can do nothing more.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import time
import warnings
from typing import TYPE_CHECKING, Any, Final, TextIO

from gemd.errors import BudgetExceededError, EngineStartFailedError, GemdError
from gemd.worker.memory import importing

if TYPE_CHECKING:
    import torch

SOFTWARE: Final = "software"
DEVICE: Final = "device"
CHECKPOINT: Final = "checkpoint"
END: Final = "end"
_LIBRARIES: Final = ("torch", "transformers", "triton", "safetensors")
_SHOWN: Final = 300
"""Characters of an error that are passed on."""


def main() -> None:
    """Make all parts that are not named as made already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--made", nargs="*", default=[], help="parts that need not be made again")
    arguments = parser.parse_args()
    # Libraries print; only what is told here goes to whoever started this process.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        Parts(frozenset(arguments.made), output).make(arguments.device)


class Parts:
    """Makes the parts and tells what comes of them.

    Args:
        made: Names of those that are known already.
        output: Where they are told.

    """

    def __init__(self, made: frozenset[str], output: TextIO) -> None:
        self._made = made
        self._output = output

    def make(self, wanted: str | None) -> None:
        """All parts, as far as they go.

        Args:
            wanted: ``cpu`` or ``cuda``; None for the GPU if there is one that torch sees.

        """
        if not self._software():
            return
        device = self._device(wanted)
        if device is None or not self._checkpoint(device):
            self._tell(END)
            return
        from gemd.worker.diffusion.compute import available_paths  # noqa: PLC0415 - torch is there

        for path in available_paths(device):
            if path.name in self._made:
                continue
            self._tell(path.name, "begun", obstacle=path.obstacle)
            if not path.obstacle and not self._path(path.name, device):
                return
            self._tell(path.name, "done")
        self._tell(END)

    def _software(self) -> bool:
        """Versions; whether everything that the engine is made of can be imported."""
        self._tell(SOFTWARE, "begun", python=platform.python_version())
        try:
            with importing():
                import torch  # noqa: PLC0415 - its failure is part of the report

                # The engine itself, and with it every library that it is made of.
                from gemd.worker.diffusion.selftest import measuring  # noqa: PLC0415 - as above
        except Exception as error:  # noqa: BLE001 - whatever an import fails with is the result
            self._tell(SOFTWARE, "done", missing=_missing(error), problem=_said(error))
            self._tell(END)
            return False
        assert measuring.TINY.is_dir()
        torch.set_num_threads(1)
        versions = {name: _version(name) for name in _LIBRARIES}
        versions |= {"torch": torch.__version__, "cuda": torch.version.cuda or ""}
        self._tell(SOFTWARE, "done", file=str(torch.__file__), **versions)
        return True

    def _device(self, wanted: str | None) -> torch.device | None:
        """Where to compute; None if the engine could not compute there."""
        import torch  # noqa: PLC0415 - is there

        from gemd.worker.diffusion.loading import device_of  # noqa: PLC0415 - torch is there

        # CUDA says what is wrong with a driver in a warning, and then that there is no GPU.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            on_gpu = torch.cuda.is_available() if wanted is None else wanted == "cuda"
            self._tell(DEVICE, "begun", kind="cuda" if on_gpu else "cpu")
            try:
                device = device_of(int(on_gpu))
                self._tell(DEVICE, "done", **_described(device))
            except Exception as error:  # noqa: BLE001 - drivers fail in many ways
                advice = list(error.advice) if isinstance(error, GemdError) else []
                more = [f"CUDA says: {_first_line(str(each.message))}" for each in warned[:1]]
                problem = "; ".join([_said(error), *more])
                name = _gpu_name() if on_gpu else ""
                self._tell(DEVICE, "done", name=name, problem=problem, advice=advice)
                return None
        return device

    def _checkpoint(self, device: torch.device) -> bool:
        """Whether the model that all paths are tried on can be loaded."""
        from gemd.worker.diffusion.selftest.measuring import load_report  # noqa: PLC0415 - as above

        self._tell(CHECKPOINT, "begun")
        try:
            self._tell(CHECKPOINT, "done", **load_report(device))
        except Exception as error:  # noqa: BLE001 - as above
            self._tell(CHECKPOINT, "done", **_failure(error))
            return False
        return True

    def _path(self, name: str, device: torch.device) -> bool:
        """The numbers of a path; whether this process can go on after them."""
        from gemd.worker.diffusion.memory import recover  # noqa: PLC0415 - as above
        from gemd.worker.diffusion.selftest.measuring import path_reports  # noqa: PLC0415 - as above

        try:
            for piece in path_reports(name, device, clock=time.perf_counter):
                self._tell(name, "known", **piece)
        except Exception as error:  # noqa: BLE001 - what compilers and drivers fail with
            lost = _lost(device)
            self._tell(name, "done" if lost else "known", fatal=lost, **_failure(error))
            if lost:
                return False
        recover(device)
        return True

    def _tell(self, part: str, state: str = "done", **known: Any) -> None:
        if part in self._made:
            return
        line = {"part": part, "state": state, **{key: _plain(known[key]) for key in known}}
        self._output.write(json.dumps(line, allow_nan=False) + "\n")
        self._output.flush()


def _plain(value: Any) -> Any:
    """A number that is none has no place in JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _described(device: torch.device) -> dict[str, Any]:
    import torch  # noqa: PLC0415 - is there

    if device.type == "cpu":
        return {"name": f"the processor ({torch.backends.cpu.get_cpu_capability()})"}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": torch.cuda.get_device_name(device),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "free_bytes": free,
        "total_bytes": total,
    }


def _gpu_name() -> str:
    """Of the first GPU; empty if torch sees none."""
    import torch  # noqa: PLC0415 - is there

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _failure(error: Exception) -> dict[str, Any]:
    """What an error is in a report."""
    from gemd.worker.diffusion.memory import OutOfMemoryError  # noqa: PLC0415 - torch is there

    # The engine has two domain errors for want of memory: of a request and of a load.
    kinds = (OutOfMemoryError, BudgetExceededError, EngineStartFailedError)
    return {"problem": _said(error), "out_of_memory": isinstance(error, kinds)}


def _lost(device: torch.device) -> bool:
    """Whether the GPU is lost to this process: after a fault, every call fails."""
    if device.type != "cuda":
        return False
    import torch  # noqa: PLC0415 - is there

    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _said(error: Exception) -> str:
    text = _first_line(str(error))
    if isinstance(error, GemdError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _missing(error: Exception) -> str:
    """Name of the library that is not there at all; empty where another thing is wrong."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name if name in _LIBRARIES else ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:_SHOWN]


if __name__ == "__main__":
    main()
