"""What a service manager is to start, and which of the user's variables go along."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gemd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PLACES: Final = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
_HUB: Final = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_TOKEN_PATH",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)
_SECRET_OR_PASSING: Final = frozenset(
    {
        "ALL_PROXY",
        "CUDA_VISIBLE_DEVICES",
        "HF_TOKEN",
        "HIP_VISIBLE_DEVICES",
        "HSA_OVERRIDE_GFX_VERSION",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "HUGGING_FACE_HUB_TOKEN",
        "LD_LIBRARY_PATH",
        "NO_PROXY",
        "ROCR_VISIBLE_DEVICES",
        "SSL_CERT_FILE",
    }
)
"""They matter to gemd, and may hold a password or be meant for one shell."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be started.

    Attributes:
        command: An absolute program and its arguments.
        environ: Variables that the service gets.
        left_out: Names of variables that are set, matter to gemd, and stay behind.

    """

    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def make_job(
    environ: Mapping[str, str], *, settings: Iterable[str], flags: Mapping[str, str], platform: str
) -> Job:
    """The daemon of this installation, with what this shell sets.

    Args:
        environ: The shell's.
        settings: Names of the variables of gemd's settings.
        flags: Settings of this command line, by key.
        platform: `sys.platform`.

    """
    # -P: a file in the working directory must not be able to pose as one of our modules.
    command = [sys.executable, "-P", "-m", "gemd"]
    if platform == "darwin":
        command.append("--agent")
    for key, value in flags.items():
        command += [f"--{key}", value]
    taken = {name: environ[name] for name in _wanted(settings, platform) if _counts(environ, name)}
    if (outside := _outside()) is not None:
        taken["PYTHONPATH"] = outside
    left = sorted(name for name in environ if name.upper() in _SECRET_OR_PASSING and environ[name])
    return Job(tuple(command), taken, tuple(left))


def _wanted(settings: Iterable[str], platform: str) -> Iterable[str]:
    yield from ("GEMD_CONFIG", *sorted(settings), *_HUB, *_PLACES)
    if platform == "darwin":
        # There it is nobody's but the shell's, and decides where the socket is.
        yield "XDG_RUNTIME_DIR"


def _counts(environ: Mapping[str, str], name: str) -> bool:
    """Whether a variable says anything; relative XDG paths do not."""
    value = environ.get(name, "")
    return os.path.isabs(value) if name.startswith("XDG_") else bool(value)  # noqa: PTH117 - a text


def _outside() -> str | None:
    """The folder that holds gemd, where the interpreter does not look by itself; or None."""
    folder = Path(gemd.__file__).resolve().parent.parent
    inside = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return None if folder in inside else str(folder)
