"""The checkpoint that is quantized: its headers, its bytes, and its removal while it is used up."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint.checkpoint import INDEX, checkpoint_headers, safetensors_index
from gemd.footprint.diffusion_config import CONFIG, read_config
from gemd.footprint.diffusion_files import SINGLE
from gemd.footprint.safetensors import read_safetensors_header
from gemd.footprint.source import open_local
from gemd.worker.quantize.files import forget, remove
from gemd.worker.quantize.nvfp4.disk import read_all
from gemd.worker.quantize.nvfp4.journal import Listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any, Self

    from gemd.footprint.safetensors import SafetensorsHeader
    from gemd.worker.quantize.nvfp4.layout import Part

_WEIGHTS: Final = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
    ".pt",
    ".pth",
    ".part",
)
"""Ends of the names of files that are not carried over."""
_BESIDE: Final = "hf_quant_config.json"


def source_config(directory: Path) -> dict[str, Any]:
    """The config.json of weights that are not quantized yet.

    Raises:
        ModelNotFoundError: There is none.
        BadModelFileError: It is none, or the weights are quantized already.

    """
    config = read_config(directory)
    described = "quantization_config" in config and config["quantization_config"] is not None
    if described or (directory / _BESIDE).exists():
        raise BadModelFileError(
            f"the weights in {directory} are quantized already",
            why=f"{CONFIG if described else _BESIDE} says so; NVFP4 is made from bf16",
            advice=("gemctl list",),
            metadata={"path": directory},
        )
    return config


def side_files(directory: Path) -> list[Path]:
    """Files beside the weights: tokenizer, templates, settings. Those of subdirectories are not."""
    return sorted(
        file
        for file in directory.iterdir()
        if file.is_file()
        and file.name != CONFIG
        and not file.name.startswith(".")
        and not file.name.endswith(_WEIGHTS)
    )


def list_files(directory: Path, earlier: Sequence[Listing]) -> tuple[Listing, ...]:
    """What files of weights there are.

    Args:
        directory: With them.
        earlier: What an earlier try found; files that are gone since are taken from it.

    Raises:
        ModelNotFoundError: There are no weights.
        BadModelFileError: A file is missing or damaged, or not the one that the index describes.

    """
    known = {listing.name: listing for listing in earlier}
    gone = {name: each for name, each in known.items() if not (directory / name).is_file()}
    if gone:
        there = [name for name in known if name not in gone]
        found = [_listing(directory / name) for name in there]
        return tuple(sorted((*found, *gone.values()), key=lambda each: each.name))
    try:
        with open_local(directory / INDEX) as source:
            index = safetensors_index(source)
    except ModelNotFoundError:
        return (_listing(directory / SINGLE),)
    stamps = [_modified_ns(directory / name) for name in index.files]
    headers = checkpoint_headers(index, lambda name: open_local(directory / name))
    return tuple(
        Listing.of(name, header, stamp)
        for name, header, stamp in zip(index.files, headers, stamps, strict=True)
    )


def _listing(path: Path) -> Listing:
    header: SafetensorsHeader = read_safetensors_header(path)
    return Listing.of(path.name, header, _modified_ns(path))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        raise BadModelFileError(
            f"{path.name} of {path.parent} is missing",
            why=f"{INDEX} names it",
            advice=(f"ls -lL {shlex.quote(str(path.parent))}",),
            metadata={"path": path.parent, "file": path.name},
        ) from None


def freed_bytes(directory: Path, files: Sequence[Listing], target: Path) -> dict[str, int]:
    """What the target's disk gets back for each file of the source that is removed."""
    device = target.stat().st_dev
    freed: dict[str, int] = {}
    for listing in files:
        with contextlib.suppress(FileNotFoundError):
            found = (directory / listing.name).stat()
            # Another name of the file keeps its bytes.
            if found.st_dev == device and found.st_nlink == 1:
                freed[listing.name] = found.st_size
    return freed


class SourceFiles:
    """Reads the source's bytes, one file open at a time but for tensors across two.

    Args:
        directory: That they are in.
        files: As they were when their headers were read.
        remaining: How many jobs will read each file, by its name.
        discard: Remove each as soon as it is used up.

    """

    def __init__(
        self,
        directory: Path,
        files: Iterable[Listing],
        remaining: Mapping[str, int],
        *,
        discard: bool,
    ) -> None:
        self._directory = directory
        self._stamps = {each.name: (each.size_bytes, each.modified_ns) for each in files}
        self._remaining = dict(remaining)
        self._discard = discard
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, part: Part, into: memoryview, offset: int = 0) -> None:
        """Fill a buffer with bytes of a part, from so many bytes on.

        Raises:
            BadModelFileError: The file is another one by now, has become shorter, or cannot be
                read.

        """
        path = self._directory / part.file
        try:
            if part.file not in self._open:
                self._open[part.file] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._check_same(part.file, os.fstat(self._open[part.file]))
            descriptor = self._open[part.file]
            read_all(descriptor, into, part.offset + offset, path)
            forget(descriptor, part.offset + offset, len(into))
        except OSError as error:
            raise BadModelFileError(
                f"{part.tensor} cannot be read from {path}",
                why=error.strerror or str(error),
                advice=(f"ls -lL {shlex.quote(str(path))}",),
                metadata={"path": path, "tensor": part.tensor},
            ) from error

    def finished(self, files: Sequence[str]) -> None:
        """A job that reads these files has been done, for good."""
        for file in files:
            self._remaining[file] -= 1
            if not self._remaining[file]:
                self.let_go(file)

    def let_go(self, file: str) -> None:
        """Nothing of this file will be read again.

        Raises:
            BadModelFileError: It has been written to since its header was read.

        """
        if file in self._open:
            os.close(self._open.pop(file))
        path = self._directory / file
        with contextlib.suppress(FileNotFoundError):
            self._check_same(file, path.stat())
        if self._discard:
            remove(path)

    def _check_same(self, file: str, found: os.stat_result) -> None:
        if (found.st_size, found.st_mtime_ns) != self._stamps[file]:
            path = self._directory / file
            raise BadModelFileError(
                f"{path} cannot be quantized",
                why="it has been written to meanwhile",
                advice=(f"ls -lL {shlex.quote(str(path))}",),
                metadata={"path": path},
            )
