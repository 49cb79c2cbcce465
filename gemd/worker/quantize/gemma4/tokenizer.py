"""A Gemma 4 checkpoint's tokenizer.json, as the vocabulary that llama.cpp's ``gemma4`` wants.

The document is scanned and never built as a whole: 262,144 tokens and 514,906 merges as Python
objects would take more memory than everything else here. The format is that of the ``tokenizers``
library; types and roles of tokens follow llama.cpp's published converter (its class for
Hugging Face vocabularies), so that files from both are read alike.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint.json_scan import JsonScan
from gemd.footprint.reader import Reader
from gemd.footprint.source import open_local
from gemd.worker.quantize.gguf.header import STRING, Packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.footprint.source import Source
    from gemd.worker.fields import Fields

TOKENIZER: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"

NORMAL: Final = 1
CONTROL: Final = 3
USER_DEFINED: Final = 4
BYTE: Final = 6

MAX_TOKENS: Final = 1 << 20
MAX_MERGES: Final = 1 << 22
_MAX_TEXT_BYTES: Final = 4096
_MAX_PART_BYTES: Final = 8 * 1024**2
"""Of everything but tokens and merges; added tokens take some 200 bytes each."""
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,9}")
_PLAIN_TOKEN: Final = re.compile(
    rb'"([^"\\\x00-\x1f]{1,4096}+)"\s*+:\s*+(0|[1-9][0-9]{0,9}+)\s*+,\s*+(?=")'
)
_PART: Final = rb'"([^" \\\x00-\x1f]{1,4096}+)"'
_PLAIN_MERGE: Final = re.compile(
    rb"\[\s*+" + _PART + rb"\s*+,\s*+" + _PART + rb'\s*+\]\s*+,\s*+(?=[\["])'
)
"""Entries as nearly all of them are, with another one behind, found in one step."""
_PLAIN_BYTES: Final = 9216
_COUNT: Final = struct.Struct("<Q")
_SPACE: Final = "▁"
_BYTE: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_BYTES: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))
_VISIBLE: Final = frozenset(
    (
        *("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"),
        *("<|tool_response>", "<tool_response|>", '<|"|>'),
    )
)
"""Control tokens that have to appear in an answer's text, where thoughts and calls are found."""
_USUAL: Final = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
"""What transformers' ``GemmaTokenizer`` calls them where the settings are silent."""
_ROLES: Final = ("bos", "eos", "unk", "sep", "pad", "mask")
_LISTS: Final = (
    "additional_special_tokens",
    "extra_special_tokens",
    "model_specific_special_tokens",
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens and merges of a byte-pair encoding.

    Attributes:
        tokens: Texts in the order of their numbers, from 0.
        types: llama.cpp's number of each one's kind.
        merges: Pairs with a space between, the first to be merged first.
        roles: Numbers of the tokens for ``bos``, ``eos`` and so on.
        ends: Whether texts get the end token; None where the files do not say.

    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: Packed
    roles: dict[str, int]
    ends: bool | None


@dataclass(slots=True)
class _Parts:
    """What the scan collects."""

    vocab: dict[str, int] = field(default_factory=dict)
    merges: bytearray = field(default_factory=bytearray)
    merge_count: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)


def read_vocabulary(directory: Path, settings: Fields, config: Fields) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Args:
        directory: With its tokenizer.json.
        settings: Its tokenizer_config.json.
        config: Its config.json, which names tokens that the other does not.

    Raises:
        BadModelFileError: There is none, it is damaged, or of another form than Gemma 4's.

    """
    path = directory / TOKENIZER
    try:
        with open_local(path) as source:
            parts = _Scan(source).parts()
    except ModelNotFoundError:
        raise _not_gemma(path, "there is no such file") from None
    _check_form(path, parts)
    added = _added(path, parts)
    special = _special(settings)
    tokens = _in_order(path, parts.vocab, added)
    if not set(_BYTES) <= parts.vocab.keys():
        raise _not_gemma(path, "it has no tokens for single bytes, <0x00> to <0xFF>")
    return Vocabulary(
        tokens=tokens,
        types=tuple(
            _type(text, special, base=number < len(parts.vocab))
            for number, text in enumerate(tokens)
        ),
        merges=Packed(bytes(parts.merges), STRING, parts.merge_count),
        roles=_roles(settings, config, added, len(tokens)),
        ends=_ends(path, parts.rest.get("post_processor"), settings),
    )


class _Scan:
    """Reads the document once, from front to back."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reader = Reader(source, "tokenizer")
        self._scan = JsonScan(self._reader)
        self._parts = _Parts()

    def parts(self) -> _Parts:
        self._table(
            {"model": self._model},
            lambda key: self._parts.rest.__setitem__(key, self._small()),
        )
        self._scan.end()
        return self._parts

    def _table(self, large: dict[str, Callable[[], None]], small: Callable[[str], None]) -> None:
        if not self._scan.takes(b"{"):
            raise self._reader.fail("a table is missing")
        for key in self._scan.members(_MAX_TEXT_BYTES):
            if key in large:
                large[key]()
            else:
                small(key)

    def _model(self) -> None:
        self._table(
            {"vocab": self._vocab, "merges": self._merges},
            lambda key: self._parts.model.__setitem__(key, self._small()),
        )

    def _vocab(self) -> None:
        if not self._scan.takes(b"{"):
            raise self._reader.fail("its vocabulary is no table of numbers")
        if self._scan.takes(b"}"):
            return
        while True:
            while (found := self._reader.match(_PLAIN_TOKEN, _PLAIN_BYTES)) is not None:
                self._add_token(self._decoded(found[1]), int(found[2]))
            text = self._scan.string(_MAX_TEXT_BYTES)
            number = self._reader.match(_NUMBER, 10) if self._scan.takes(b":") else None
            if number is None:
                raise self._reader.fail(f"token {text[:80]!r} has no number")
            self._add_token(text, int(number[0]))
            if not self._scan.more(b"}"):
                return

    def _add_token(self, text: str, number: int) -> None:
        vocab = self._parts.vocab
        if text in vocab or len(vocab) == MAX_TOKENS:
            raise self._reader.fail(f"token {text[:80]!r} comes twice, or is one too many")
        vocab[text] = number

    def _merges(self) -> None:
        if not self._scan.takes(b"["):
            raise self._reader.fail("its merges are no list")
        if self._scan.takes(b"]"):
            return
        while True:
            while (found := self._reader.match(_PLAIN_MERGE, _PLAIN_BYTES)) is not None:
                self._add_merge(self._decoded(found[1] + b" " + found[2]))
            self._merge()
            if not self._scan.more(b"]"):
                return

    def _merge(self) -> None:
        """One pair: a list of two texts, or one text with a space between in older files."""
        if self._scan.takes(b"["):
            first = self._scan.string(_MAX_TEXT_BYTES)
            if not self._scan.more(b"]"):
                raise self._reader.fail("a merge has one part only")
            merge = f"{first} {self._scan.string(_MAX_TEXT_BYTES)}"
            if self._scan.more(b"]"):
                raise self._reader.fail("a merge has more than two parts")
        else:
            merge = self._scan.string(_MAX_TEXT_BYTES)
        # llama.cpp divides at the first space behind the first character.
        if merge.count(" ") != 1 or merge[0] == " " or merge[-1] == " ":
            raise self._reader.fail(f"the merge {merge[:80]!r} is not of two parts without spaces")
        self._add_merge(merge)

    def _add_merge(self, merge: str) -> None:
        self._parts.merge_count += 1
        if self._parts.merge_count > MAX_MERGES:
            raise self._reader.fail(f"it has more than {MAX_MERGES} merges")
        data = merge.encode()
        self._parts.merges += _COUNT.pack(len(data)) + data

    def _decoded(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeError:
            raise self._reader.fail("a token is no Unicode") from None

    def _small(self) -> Any:
        start = self._reader.offset
        self._scan.skip(_MAX_PART_BYTES)
        size = self._reader.offset - start
        if size > _MAX_PART_BYTES:
            raise self._reader.fail(f"a part takes {size} bytes", offset=start)
        return json.loads(self._source.read_at(start, size))


def _check_form(path: Path, parts: _Parts) -> None:
    """That llama.cpp reads texts as this tokenizer does: its way for Gemma 4 is built in."""
    model = parts.model
    if model.get("type") != "BPE" or model.get("byte_fallback") is not True:
        raise _not_gemma(path, "it is no byte-pair encoding with bytes for what is unknown")
    for key in ("ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _not_gemma(path, f"{key} is {model[key]!r:.80}")
    if not parts.vocab or not parts.merge_count:
        raise _not_gemma(path, "it has no tokens, or no merges")
    if _normalizers(parts.rest.get("normalizer")) != [("Replace", {"String": " "}, _SPACE)]:
        raise _not_gemma(path, f"its normalizer does something else than put {_SPACE} for spaces")
    before = parts.rest.get("pre_tokenizer")
    # There are no spaces left that it could split at.
    if before is not None and not _splits_spaces(before):
        raise _not_gemma(path, "it divides a text before merging")


def _normalizers(value: Any) -> list[tuple[Any, Any, Any]]:
    if not isinstance(value, dict):
        return []
    steps = value.get("normalizers") if value.get("type") == "Sequence" else [value]
    steps = steps if isinstance(steps, list) else []
    return [
        (step.get("type"), step.get("pattern"), step.get("content"))
        for step in steps
        if isinstance(step, dict)
    ]


def _splits_spaces(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("type") == "Split"
        and value.get("pattern") == {"String": " "}
        and value.get("invert") is not True
    )


def _added(path: Path, parts: _Parts) -> dict[str, int]:
    """Tokens that are found before any merge, by text."""
    listed = parts.rest.get("added_tokens") or []
    added: dict[str, int] = {}
    for each in listed if isinstance(listed, list) else [None]:
        text, number = (each.get("content"), each.get("id")) if isinstance(each, dict) else (0, 0)
        if not isinstance(text, str) or type(number) is not int:
            raise _not_gemma(path, f"{each!r:.80} is no added token")
        if added.setdefault(text, number) != number or parts.vocab.get(text, number) != number:
            raise _not_gemma(path, f"the token {text[:80]!r} has two numbers")
    return added


def _in_order(path: Path, vocab: dict[str, int], added: dict[str, int]) -> tuple[str, ...]:
    count = len(vocab.keys() | added.keys())
    tokens = [""] * count
    for texts in (vocab, added):
        for text, number in texts.items():
            if number >= count or tokens[number] not in ("", text) or not text:
                raise _not_gemma(
                    path, f"token {text[:80]!r} has number {number}, and there are {count}"
                )
            tokens[number] = text
    return tuple(tokens)


def _special(settings: Fields) -> frozenset[str]:
    """Texts of control tokens: those with a role, and those in lists of them."""
    texts = {text for key, text in _USUAL.items() if not settings.values.get(f"{key}_token")}
    for key, value in settings.values.items():
        if key.endswith("_token"):
            texts.update(_texts(value))
        elif key in _LISTS:
            members = list(value.values()) if isinstance(value, dict) else value
            for each in members if isinstance(members, list) else []:
                texts.update(_texts(each))
    return frozenset(texts)


def _texts(value: Any) -> tuple[str, ...]:
    text = value.get("content") if isinstance(value, dict) else value
    return (text,) if isinstance(text, str) else ()


def _type(text: str, special: frozenset[str], *, base: bool) -> int:
    if text in _VISIBLE:
        return USER_DEFINED
    if base and _BYTE.fullmatch(text):
        return BYTE
    if text in special:
        return CONTROL
    return NORMAL if base else USER_DEFINED


def _roles(settings: Fields, config: Fields, added: dict[str, int], count: int) -> dict[str, int]:
    """Numbers of the tokens with a role; the tokenizer's files come before config.json."""
    roles = {}
    for role in _ROLES:
        for text in _texts(settings.values.get(f"{role}_token")):
            if text in added:
                roles[role] = added[text]
        for table in (config, config.table("text_config")):
            number = table.values.get(f"{role}_token_id")
            if number is not None and role not in roles:
                # The one that ends a text may be a list; then the settings name the first.
                if type(number) is int:
                    roles[role] = table.integer(f"{role}_token_id", least=0, most=count - 1)
                break
    return roles


def _ends(path: Path, value: Any, settings: Fields) -> bool | None:
    """Whether the end token is put behind a text; the beginning is put before it in any case."""
    if value is not None:
        last = _last_of_template(value)
        if last is None:
            raise _not_gemma(path, "its post-processor is no template")
        special = last.get("SpecialToken")
        if isinstance(special, dict):
            return special.get("id") in _texts(settings.values.get("eos_token"))
    said = settings.values.get("add_eos_token")
    return said if isinstance(said, bool) else None


def _last_of_template(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or value.get("type") != "TemplateProcessing":
        return None
    single = value.get("single")
    last = single[-1] if isinstance(single, list) and single else None
    return last if isinstance(last, dict) else None


def _not_gemma(path: Path, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"{path} is no tokenizer of Gemma 4",
        why=why,
        advice=("gemctl list",),
        metadata={"path": path},
    )
