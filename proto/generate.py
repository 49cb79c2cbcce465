"""Regenerates `gemd/v1` and the descriptor image from `proto/gemd/v1/*.proto`.

Run it after every change to a `.proto` file, in the development environment:

    python proto/generate.py

The stubs are made by an old grpcio-tools in an environment of its own: stubs refuse to run on
runtimes older than their generator, so the generator fixes the oldest grpcio and protobuf that gemd
supports; and beside the development environment's packages pip would quietly hold protobuf back.
That environment is built once, with pip, in the user's cache directory (or in `--env DIR`).
`GEMD_CODEGEN_PYTHON` names the Python of a ready one instead.

Before anything is written the files are held against the committed descriptor. A change that would
break clients is refused; `--allow-breaking` is for the time before the first release.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PINNED: Final[Mapping[str, str]] = {"grpcio-tools": "1.76.0", "mypy-protobuf": "5.1.0"}
"""The generators. Raising grpcio-tools raises the least grpcio and protobuf in pyproject.toml."""

PROTO: Final = Path(__file__).resolve().parent
ROOT: Final = PROTO.parent
PACKAGE: Final = Path("gemd", "v1")
DESCRIPTOR: Final = "gemd-v1.binpb"
STUBS: Final = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


class GenerateError(Exception):
    """What stands in the way, and what to do about it."""


def default_env() -> Path:
    """The cached environment, one for each set of pins and Python version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    pins = "-".join(f"{name}-{version}" for name, version in sorted(PINNED.items()))
    return cache / "gemd" / "codegen" / f"{pins}-{sys.implementation.cache_tag}"


def codegen_python(env: Path | None) -> Path:
    """The Python of an environment with the pinned generators, which is built if need be."""
    ready = os.environ.get("GEMD_CODEGEN_PYTHON")
    if env is None and ready:
        python = Path(ready)
    else:
        env = env or default_env()
        python = env / "bin" / "python"
        env.mkdir(parents=True, exist_ok=True)
        with (env / ".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _installed(python) != PINNED:
                _build(env, python)
    found = _installed(python)
    if found != PINNED:
        msg = f"{python} has {found or 'no generators'}, and gemd's stubs need {dict(PINNED)}"
        raise GenerateError(msg)
    return python


def _build(env: Path, python: Path) -> None:
    print(f"building the code generator's environment in {env}", file=sys.stderr)
    venv.create(env, with_pip=True)
    pins = [f"{name}=={version}" for name, version in PINNED.items()]
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", *pins]
    # pip's own words go to stderr: they say which index was asked and why it failed.
    if subprocess.run(pip, check=False, stdout=sys.stderr).returncode:
        msg = (
            f"pip could not install {' '.join(pins)} (see above); with no package index at hand, "
            "set GEMD_CODEGEN_PYTHON to the Python of an environment that has them"
        )
        raise GenerateError(msg)


def _installed(python: Path) -> dict[str, str]:
    """The versions of the generators beside this Python; those that are missing are left out."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "have = {d.name: d.version for d in m.distributions()}\n"
        "print(json.dumps({n: have[n] for n in sys.argv[1:] if n in have}))"
    )
    try:
        done = subprocess.run(
            [python, "-I", "-c", code, *PINNED], check=False, capture_output=True, text=True
        )
    except OSError:
        return {}
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def find_buf() -> Path:
    """The `buf` of the development environment, or else of the path."""
    beside = Path(sys.executable).with_name("buf")
    if beside.exists():
        return beside
    found = shutil.which("buf")
    if found is None:
        msg = "buf is not installed: pip install buf-bin (it is part of gemd's dev extra)"
        raise GenerateError(msg)
    return Path(found)


def check_breaking(buf: Path) -> None:
    """Raises if a client made from the committed descriptor could not talk to this API."""
    committed = PROTO / DESCRIPTOR
    if not committed.exists():
        return
    done = subprocess.run(
        [buf, "breaking", PROTO, "--against", committed],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        msg = f"this would break clients:\n{done.stdout}{done.stderr}"
        raise GenerateError(msg)


def generate(python: Path, buf: Path, out: Path) -> None:
    """Writes the stubs below `out/gemd/v1` and the descriptor into `out/proto`."""
    with tempfile.TemporaryDirectory() as made_in:
        made = Path(made_in)
        _run(
            python,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTO}",
            *(
                f"--plugin=protoc-gen-{plugin}={python.with_name(f'protoc-gen-{plugin}')}"
                for plugin in ("mypy", "mypy_grpc")
            ),
            *(f"--{kind}_out={made}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *sorted(str(path) for path in PROTO.joinpath(PACKAGE).glob("*.proto")),
        )
        descriptor = made / DESCRIPTOR
        _run(buf, "build", PROTO, "--output", descriptor)

        # Nothing is touched before everything is made, and stubs of removed files go.
        stubs = out / PACKAGE
        stubs.mkdir(parents=True, exist_ok=True)
        for old in (path for pattern in STUBS for path in stubs.glob(pattern)):
            old.unlink()
        for new in made.joinpath(PACKAGE).iterdir():
            shutil.copyfile(new, stubs / new.name)
        out.joinpath("proto").mkdir(exist_ok=True)
        shutil.copyfile(descriptor, out / "proto" / DESCRIPTOR)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        msg = f"{Path(command[0]).name} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        raise GenerateError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--env", type=Path, metavar="DIR", help="where the code generator's environment is kept"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=ROOT, help="write below DIR, not the repository"
    )
    parser.add_argument(
        "--allow-breaking", action="store_true", help="accept a change that breaks clients"
    )
    options = parser.parse_args(argv)
    try:
        buf = find_buf()
        if not options.allow_breaking:
            check_breaking(buf)
        generate(codegen_python(options.env), buf, options.out.resolve())
    except GenerateError as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
