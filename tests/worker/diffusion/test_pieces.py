"""Bytes of single tokens, beside what the library makes of whole sequences."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, pre_tokenizers

from gemd.worker.diffusion.pieces import UnknownDecoderError, piece_reader

BYTE_LEVEL = {"type": "ByteLevel"}
SENTENCE_PIECE = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    ],
}


def test_every_byte_has_its_letter() -> None:
    """256 letters for 256 bytes, the library's own alphabet."""
    read = piece_reader(BYTE_LEVEL)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert {read(letter) for letter in alphabet} == {bytes([byte]) for byte in range(256)}
    assert read("Ġthe") == b" the"
    assert read("Ċ") == b"\n"


@given(st.text(max_size=20) | st.text(alphabet="Ġéaß 日", max_size=6))
def test_byte_level_reads_a_token_of_ordinary_text_as_the_library_does(text: str) -> None:
    """User-defined tokens are not spelled in its letters, unless they look as if they were."""
    ours = piece_reader(BYTE_LEVEL)(text).decode("utf-8", "replace")
    assert ours == decoders.ByteLevel().decode([text])


@pytest.mark.parametrize(
    "token,piece",
    [
        ("▁▁the▁", b"  the "),
        ("<0x0A>", b"\n"),
        ("<0xe2>", b"\xe2"),
        ("<0x0A", b"<0x0A"),
        ("<0x0A>▁", b"<0x0A> "),
        ("<0xGG>", b"<0xGG>"),
        ("", b""),
        ("日", "日".encode()),
    ],
)
def test_sentence_piece_reads_spaces_and_bytes(token: str, piece: bytes) -> None:
    """A byte is a byte only where it is the whole token."""
    assert piece_reader(SENTENCE_PIECE)(token) == piece


def test_without_byte_fallback_a_byte_is_its_spelling() -> None:
    """As the library has it."""
    replace, _ = SENTENCE_PIECE["decoders"]
    assert piece_reader({"type": "Sequence", "decoders": [replace]})("▁<0x0A>") == b" <0x0A>"
    assert piece_reader({"type": "Sequence", "decoders": [replace]})("<0x0A>") == b"<0x0A>"


@pytest.mark.parametrize(
    "decoder,named",
    [
        (None, "no decoder"),
        ({"type": "CTC"}, "CTC"),
        ({"type": "Sequence", "decoders": [BYTE_LEVEL, {"type": "ByteFallback"}]}, "ByteLevel"),
        ({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, "Replace"),
    ],
)
def test_any_other_form_is_named(decoder: dict[str, object] | None, named: str) -> None:
    """Text would come out wrong in silence."""
    with pytest.raises(UnknownDecoderError, match=named):
        piece_reader(json.loads(json.dumps(decoder)))
