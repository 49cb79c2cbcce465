"""Messages as bytes on the socket, and back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from gemd.wire.to_daemon import ToDaemon  # noqa: TC001 - pydantic reads it
from gemd.wire.to_worker import ToWorker  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.wire.base import Message

MAX_FRAME_BYTES = 64 * 1024 * 1024

_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """The other side sent bytes that are no frame of this protocol."""


class _WorkerFrame(BaseModel):
    model_config = ConfigDict(extra="forbid")
    w: str
    m: ToWorker


class _DaemonFrame(BaseModel):
    model_config = ConfigDict(extra="forbid")
    w: str
    m: ToDaemon


_Frame = TypeVar("_Frame", _WorkerFrame, _DaemonFrame)

_TO_WORKER: TypeAdapter[_WorkerFrame] = TypeAdapter(_WorkerFrame)
_TO_DAEMON: TypeAdapter[_DaemonFrame] = TypeAdapter(_DaemonFrame)


def encode(identity: str, message: Message) -> bytes:
    """One whole frame.

    Raises:
        WireError: The message is larger than a frame may be, or its text is no Unicode.

    """
    try:
        content = message.__pydantic_serializer__.to_json(message, exclude_none=True)
    except PydanticSerializationError as error:
        raise WireError(f"not to be written as JSON: {error}") from None
    body = b'{"w":%s,"m":%s}' % (_json_string(identity), content)
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes exceeds {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def _json_string(text: str) -> bytes:
    # Identities are model ids and numbers; anything that JSON would escape is a defect.
    if not text.isascii() or '"' in text or "\\" in text or not text.isprintable():
        raise WireError(f"an identity has to be plain printable ASCII, not {text!r}")
    return b'"%s"' % text.encode("ascii")


def decode_for_worker(identity: str, body: bytes) -> ToWorker:
    """The message of one frame body that the daemon sent.

    Raises:
        WireError: It is no such message, or it is meant for another worker.

    """
    return _checked(identity, _TO_WORKER, body).m


def decode_for_daemon(identity: str, body: bytes) -> ToDaemon:
    """The message of one frame body that a worker sent.

    Raises:
        WireError: It is no such message, or another worker sent it.

    """
    return _checked(identity, _TO_DAEMON, body).m


def _checked(identity: str, kind: TypeAdapter[_Frame], body: bytes) -> _Frame:
    try:
        frame = kind.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"not a frame: {where}: {first['msg']}") from None
    if frame.w != identity:
        raise WireError(f"a frame of worker {frame.w!r} arrived on the channel of {identity!r}")
    return frame


class FrameReader:
    """Cuts a byte stream into frame bodies, without I/O of its own."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The bodies that `data` completes.

        Raises:
            WireError: A length is 0 or beyond `MAX_FRAME_BYTES`: the stream is garbage
                from here on.

        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not 0 < length <= MAX_FRAME_BYTES:
                raise WireError(f"a frame length of {length} is not in 1..{MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body
