"""The tokenizer files of a checkpoint: tokenizer.json, its settings, and the chat template.

They are read with the `tokenizers` library alone. transformers' own way to a tokenizer imports most
of transformers, and can run code that came with a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenizers import AddedToken, Tokenizer

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import open_local
from gemd.worker.fields import Fields, read_optional_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKENIZER: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
TEMPLATE: Final = "chat_template.jinja"

MAX_TOKENIZER_BYTES: Final = 128 * 1024**2
"""Four times that of Gemma, whose 262,144 tokens take 33 MB."""
MAX_TEMPLATE_BYTES: Final = 1024**2
_SHOWN: Final = 200
_LISTS: Final = (
    "additional_special_tokens",
    "extra_special_tokens",
    "model_specific_special_tokens",
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What they hold.

    Attributes:
        path: Of tokenizer.json.
        tokenizer: Ready to be used: it cuts nothing off, adds nothing and draws no lots.
        bos: How the token that begins a text is written; "" if there is none.
        eos: The same of the one that ends it.
        control: How control tokens are written, as the settings say it.
        chat_template: Its source; None if there is none.

    """

    path: Path
    tokenizer: Tokenizer
    bos: str
    eos: str
    control: frozenset[str]
    chat_template: str | None


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """Read them.

    Args:
        directory: Of the checkpoint.

    Raises:
        BadModelFileError: tokenizer.json is missing, damaged or too large, or the settings are, or
            they name a token that there is not.

    """
    path = directory / TOKENIZER
    tokenizer = _tokenizer(path)
    settings_path = directory / SETTINGS
    settings = read_optional_fields(settings_path)
    named = frozenset(_control(settings))
    there = frozenset(text for text in named if tokenizer.token_to_id(text) is not None)
    _add_control(tokenizer, there)
    return TokenizerFiles(
        path=path,
        tokenizer=tokenizer,
        bos=_marker(tokenizer, settings, "bos_token", "<bos>"),
        eos=_marker(tokenizer, settings, "eos_token", "<eos>"),
        control=there,
        chat_template=_template(directory, settings),
    )


def bad_tokenizer(path: Path, why: str, **metadata: object) -> BadModelFileError:
    """The error to raise about a tokenizer file."""
    return BadModelFileError(
        f"{path} is no tokenizer that this engine can use",
        why=why,
        advice=("gemctl list",),
        metadata={"path": path, **metadata},
    )


def _tokenizer(path: Path) -> Tokenizer:
    data = _read(path, most=MAX_TOKENIZER_BYTES)
    if data is None:
        raise bad_tokenizer(path, "there is no such file, and a model reads tokens only")
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except ValueError as error:
        raise bad_tokenizer(path, str(error)[:_SHOWN]) from None
    # Files are often saved with what their training batches needed.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    return tokenizer


def _control(settings: Fields) -> Iterator[str]:
    """Texts of the control tokens that the settings name, in any of the ways in use."""
    for key, value in settings.values.items():
        if key.endswith("_token"):
            yield from _texts(value)
        elif key in _LISTS:
            for each in _members(value):
                yield from _texts(each)
        elif key == "added_tokens_decoder":
            for each in _members(value):
                if isinstance(each, dict) and each.get("special"):
                    yield from _texts(each)


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _texts(value: Any) -> Iterator[str]:
    text = value.get("content") if isinstance(value, dict) else value
    if isinstance(text, str) and text:
        yield text


def _add_control(tokenizer: Tokenizer, texts: frozenset[str]) -> None:
    """Have control tokens found that only the settings call so; none gets a new number."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in sorted(texts - known)]
    )


def _marker(tokenizer: Tokenizer, settings: Fields, key: str, usual: str) -> str:
    """The text of a token that has a role; where the settings say nothing, what Gemma calls it."""
    text = next(_texts(settings.values.get(key)), None)
    if text is None:
        return usual if tokenizer.token_to_id(usual) is not None else ""
    if tokenizer.token_to_id(text) is None:
        raise settings.fail(key, f"{TOKENIZER} has no such token")
    return text


def _template(directory: Path, settings: Fields) -> str | None:
    data = _read(directory / TEMPLATE, most=MAX_TEMPLATE_BYTES)
    if data is not None:
        return data.decode("utf-8", "replace")
    value = settings.values.get("chat_template")
    if isinstance(value, list):
        # Several by name, in files of before chat_template.jinja.
        named = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _read(path: Path, *, most: int) -> bytes | None:
    """A file's bytes; None if there is no such file."""
    try:
        with open_local(path) as source:
            if source.size > most:
                raise bad_tokenizer(
                    path,
                    f"it has {source.size} bytes; {most} is the limit",
                    size=source.size,
                    limit=most,
                )
            return source.read_at(0, source.size)
    except ModelNotFoundError:
        return None
