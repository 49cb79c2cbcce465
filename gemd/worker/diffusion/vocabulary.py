"""Tokens of one checkpoint, as text and as bytes; satisfies `gemd.worker.prompting.prompt`."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Final

from gemd.worker.diffusion.pieces import UnknownDecoderError, piece_reader
from gemd.worker.diffusion.tokenizer_files import bad_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers.decoders import Decoder

    from gemd.worker.diffusion.tokenizer_files import TokenizerFiles

_GUARD: Final = "\U000f0100"
"""A private-use character: no vocabulary has a token that begins with it."""
_TURN_END: Final = "<turn|>"


class Vocabulary:
    """Tokens of one model, both ways.

    Args:
        files: Of its checkpoint.
        size: Tokens that the model has, by its config.
        end_of_generation: Tokens that end an answer, by its generation config; at least one.

    Raises:
        BadModelFileError: The tokenizer is another model's, or of a form that is not known.

    Attributes:
        size: Number of tokens.
        bos: The token that begins a text; -1 for none.
        eos: The one that fills a canvas behind the end of an answer.
        turn_end: The one that closes an answer in a chat; `eos` if there is none of its own.
        adds_bos: Whether a text has to begin with `bos`.
        adds_eos: Whether a whole document has to end with `eos`; never.
        end_of_generation: Tokens that end an answer.
        special: Tokens that are found in a text as a whole, before the rest is split.
        control_texts: How control tokens are written; never to be read in user text.
        user_defined_texts: How user-defined tokens are written; read in any text.

    """

    def __init__(
        self, files: TokenizerFiles, *, size: int, end_of_generation: Iterable[int]
    ) -> None:
        self._path = files.path
        self._tokenizer = files.tokenizer
        self._lock = threading.Lock()
        self._pieces: dict[int, bytes] = {}
        self.size = size
        count = self._tokenizer.get_vocab_size(with_added_tokens=False)
        if count > size:
            raise bad_tokenizer(
                self._path,
                f"it has {count} tokens and the model has {size}, so it is another model's",
                tokens=count,
                vocabulary=size,
            )
        try:
            self._read_piece = piece_reader(_decoder(self._tokenizer.decoder))
        except UnknownDecoderError as unknown:
            raise bad_tokenizer(
                self._path,
                f"its decoder has a step that is not known here: {unknown}",
                step=str(unknown),
            ) from None
        ends = tuple(end_of_generation)
        self.end_of_generation = frozenset(ends)
        self.bos = self.token(files.bos)
        self.eos = self.token(files.eos) if files.eos else ends[0]
        turn_end = self.token(_TURN_END)
        self.turn_end = turn_end if turn_end in self.end_of_generation else self.eos
        # Gemma has read a BOS before every text that it learnt from. The settings' add_bos_token
        # tells only who writes it in a chat, and there it is the template.
        self.adds_bos = self.bos >= 0
        self.adds_eos = False
        added = self._tokenizer.get_added_tokens_decoder()
        control = {
            token: item.content
            for token, item in added.items()
            if item.special or item.content in files.control
        }
        self.special = frozenset(added)
        self.control_texts = tuple(control.values())
        self.user_defined_texts = tuple(
            item.content for token, item in added.items() if token not in control
        )
        self._control = frozenset(control)
        # Some tokenizers put a space before a text; not before the rest of one.
        self._guard = self._encode(_GUARD) if self._spaces_texts() else None

    def token(self, text: str) -> int:
        """The token that is written so in the file; -1 if there is none."""
        token = self._tokenizer.token_to_id(text)
        return -1 if token is None or token >= self.size else token

    def text(self, token: int) -> str:
        """The token as it is written in the file, control tokens included; "" for none."""
        if not 0 <= token < self.size:
            return ""
        return self._tokenizer.id_to_token(token) or ""

    def piece(self, token: int) -> bytes:
        """The bytes the token adds to an answer; empty for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            text = "" if token in self._control else self.text(token)
            piece = self._pieces[token] = self._read_piece(text)
        return piece

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, continued: bool = False
    ) -> list[int]:
        """Token ids of a text.

        Args:
            text: Any text.
            add_special: Put `bos` in front.
            parse_special: Read control tokens that are written out. Never for user text.
            continued: It goes on where other text ended, so no space is put before it.

        Raises:
            BadModelFileError: The tokenizer has tokens that the model does not have.

        """
        begin = [self.bos] if add_special and self.adds_bos else []
        if continued and self._guard is not None:
            tokens = self._encode(_GUARD + text, parse_special=parse_special)
            return begin + tokens[len(self._guard) :]
        return begin + self._encode(text, parse_special=parse_special)

    def _spaces_texts(self) -> bool:
        """Whether a text begins as if a space stood before it."""
        return self._encode(_GUARD + "a") != [*self._encode(_GUARD), *self._encode("a")]

    def _encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        # Half of a surrogate pair is no character, and the library takes none.
        text = text.encode("utf-8", "replace").decode()
        with self._lock:
            self._tokenizer.encode_special_tokens = not parse_special
            tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        if max(tokens, default=0) >= self.size:
            raise bad_tokenizer(
                self._path,
                f"it made token {max(tokens)} of a text, and the model has {self.size}",
                token=max(tokens),
                vocabulary=self.size,
            )
        return tokens


def _decoder(decoder: Decoder | None) -> dict[str, Any] | None:
    """A decoder as it is written in the file."""
    if decoder is None:
        return None
    written: dict[str, Any] = json.loads(decoder.__getstate__())
    return written
