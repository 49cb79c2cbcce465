"""What can compute, as ggml in the loaded library sees it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final

from llama_cpp import llama_cpp as c

_KINDS: Final = {0: "cpu", 1: "gpu", 2: "integrated", 3: "accelerator"}
"""ggml-backend.h: enum ggml_backend_dev_type."""


@dataclass(frozen=True, slots=True)
class Device:
    """One of ggml's devices.

    Attributes:
        name: Such as ``CPU`` or ``CUDA0``.
        description: As the driver calls it.
        kind: ``cpu``, ``gpu``, ``integrated``, ``accelerator`` or ``other``.

    """

    name: str
    description: str
    kind: str


def library() -> Any:
    """The engine's library. A name is looked up in those that it depends on too, ggml's."""
    return c._lib  # noqa: SLF001 - the binding has no public name for it


def devices() -> tuple[Device, ...]:
    """All devices, in ggml's order. Asks for no memory: that would open a context on each."""
    count = _function("ggml_backend_dev_count", ctypes.c_size_t)()
    get = _function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return tuple(_device(get(index)) for index in range(count))


def _device(handle: int) -> Device:
    kind = _function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(handle)
    return Device(
        name=_text("ggml_backend_dev_name", handle),
        description=_text("ggml_backend_dev_description", handle),
        kind=_KINDS.get(kind, "other"),
    )


def _text(name: str, handle: int) -> str:
    text = _function(name, ctypes.c_char_p, ctypes.c_void_p)(handle)
    return text.decode("utf-8", "replace") if text else ""


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library(), name)
    function.restype, function.argtypes = result, arguments
    return function
