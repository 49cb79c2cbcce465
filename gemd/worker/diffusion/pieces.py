"""What a token of a tokenizer.json adds to a text, in bytes.

The `tokenizers` library decodes whole sequences and puts U+FFFD where a character is not complete,
so a stream cannot use it: a character may begin in one canvas and end in the next. These are the
same steps for one token, for the two forms that this model family has: byte-level BPE, and
SentencePiece's BPE with ``▁`` for a space and ``<0x0A>`` for a byte that has no token.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Reader = Callable[[str], bytes]

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PRINTABLE: Final = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
"""Bytes that stand for themselves in byte-level BPE, as GPT-2 introduced it."""


class UnknownDecoderError(Exception):
    """A step of a decoder that neither form has; the text names it."""


def piece_reader(decoder: Mapping[str, Any] | None) -> Reader:
    """The function that gives the bytes of a token as it is written in the file.

    Args:
        decoder: The file's `decoder`, or None if it has none.

    Raises:
        UnknownDecoderError: It is of another form.

    """
    steps = list(_steps(decoder or {"type": "no decoder"}))
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return _byte_level()
    replaced: list[tuple[str, str]] = []
    # Put together, texts are what they were: `Fuse` needs no counterpart.
    steps = [step for step in steps if step["type"] != "Fuse"]
    falls_back = bool(steps) and steps[-1]["type"] == "ByteFallback"
    for step in steps[:-1] if falls_back else steps:
        pattern = step.get("pattern")
        if step["type"] != "Replace" or not isinstance(pattern, dict) or "String" not in pattern:
            raise UnknownDecoderError(str(step["type"]))
        replaced.append((pattern["String"], step["content"]))
    return _sentence_piece(tuple(replaced), falls_back=falls_back)


def _steps(decoder: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for part in decoder["decoders"] for step in _steps(part)]


def _byte_level() -> Reader:
    itself = {byte for stretch in _PRINTABLE for byte in stretch}
    others = (byte for byte in range(0x100) if byte not in itself)
    letters = {chr(byte): byte for byte in itself}
    letters |= {chr(0x100 + number): byte for number, byte in enumerate(others)}

    def read(text: str) -> bytes:
        # A user-defined token may be ordinary text; the library tells the two apart like this.
        if any(letter not in letters for letter in text):
            return text.encode()
        return bytes(letters[letter] for letter in text)

    return read


def _sentence_piece(replaced: tuple[tuple[str, str], ...], *, falls_back: bool) -> Reader:
    def read(text: str) -> bytes:
        for old, new in replaced:
            text = text.replace(old, new)
        byte = _BYTE.fullmatch(text) if falls_back else None
        return text.encode() if byte is None else bytes.fromhex(byte[1])

    return read
