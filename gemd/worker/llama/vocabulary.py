"""Tokens of one model, as text and as bytes."""

from __future__ import annotations

import ctypes
from typing import Any

from llama_cpp import llama_cpp as c

_GUARD = "\U000f0100"
"""A private-use character: no vocabulary has a token that begins with it."""


class Vocabulary:
    """Tokens of one model, both ways.

    Attributes:
        size: Number of tokens.
        bos: The token that begins a text; -1 for none.
        eos: The one that ends it; -1 for none.
        adds_bos: Whether a text has to begin with `bos`.
        adds_eos: Whether a whole document has to end with `eos`.
        end_of_generation: Tokens that end an answer.
        special: Tokens that llama.cpp finds in a text as a whole, before it splits the rest.
        control_texts: How control tokens are written; never to be read in user text.
        user_defined_texts: How user-defined tokens are written; read in any text.

    """

    def __init__(self, model: Any) -> None:
        self._handle = c.llama_model_get_vocab(model)
        self.size = int(c.llama_vocab_n_tokens(self._handle))
        self._pieces: dict[int, bytes] = {}
        self.bos = int(c.llama_vocab_bos(self._handle))
        self.eos = int(c.llama_vocab_eos(self._handle))
        self.adds_bos = bool(c.llama_vocab_get_add_bos(self._handle)) and self.bos >= 0
        self.adds_eos = bool(c.llama_vocab_get_add_eos(self._handle)) and self.eos >= 0
        hidden = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_UNKNOWN
        user = c.LLAMA_TOKEN_ATTR_USER_DEFINED
        marked = [
            (token, attribute)
            for token in range(self.size)
            if (attribute := int(c.llama_vocab_get_attr(self._handle, token))) & (hidden | user)
        ]
        self.special = frozenset(token for token, _ in marked)
        # llama.cpp marks every end-of-generation token as a control token at load.
        self.end_of_generation = frozenset(
            token for token, _ in marked if c.llama_vocab_is_eog(self._handle, token)
        )
        self._marked = {self.text(token): token for token in self.special}
        self.control_texts = tuple(self.text(t) for t, attribute in marked if attribute & hidden)
        self.user_defined_texts = tuple(self.text(t) for t, attribute in marked if attribute & user)
        # SentencePiece vocabularies put a space before a text; not before the rest of one.
        self._guard = self._tokenize(_GUARD) if self._spaces_texts() else None

    def token(self, text: str) -> int:
        """The special token that is written so in the file; -1 if there is none."""
        return self._marked.get(text, -1)

    def text(self, token: int) -> str:
        """The token as it is written in the file, control tokens included; "" for none."""
        if not 0 <= token < self.size:
            return ""
        text = c.llama_vocab_get_text(self._handle, token)
        return text.decode("utf-8", "replace") if text else ""

    def piece(self, token: int) -> bytes:
        """The bytes the token adds to an answer; empty for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = c.llama_token_to_piece(self._handle, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, continued: bool = False
    ) -> list[int]:
        """Token ids of a text.

        Args:
            text: Any text.
            add_special: Put the model's own BOS in front (and EOS behind), if it wants one.
            parse_special: Read control tokens that are written out. Never for user text.
            continued: It goes on where other text ended, so no space is put before it.

        """
        if continued and self._guard is not None:
            tokens = self._tokenize(
                _GUARD + text, add_special=add_special, parse_special=parse_special
            )
            return tokens[len(self._guard) :]
        return self._tokenize(text, add_special=add_special, parse_special=parse_special)

    def _spaces_texts(self) -> bool:
        """Whether a text begins as if a space stood before it."""
        if c.llama_vocab_type(self._handle) != c.LLAMA_VOCAB_TYPE_SPM:
            return False
        return self._tokenize(_GUARD + "a") != [*self._tokenize(_GUARD), *self._tokenize("a")]

    def _tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        data = text.encode("utf-8", "replace")
        size = len(data) + 16
        while True:
            tokens = (c.llama_token * size)()
            count = c.llama_tokenize(
                self._handle, data, len(data), tokens, size, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            size = -count

    @property
    def handle(self) -> Any:
        """For the sampler constructors."""
        return self._handle
