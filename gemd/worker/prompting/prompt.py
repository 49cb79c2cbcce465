"""A request's input as token ids.

Two texts meet in a prompt: the template's, whose control tokens structure the
conversation, and the user's, who must not be able to write such a token. The template
returns one string, so the difference has to be carried through it: wherever user text
spells a control token, or ends like the beginning of one, a character that occurs nowhere
else is put there before rendering (`control`), and the result is cut at these. Each part
is tokenized by itself, so the token cannot form; text without such spellings, which is
nearly all text, reaches the template unchanged and is tokenized exactly as usual.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Protocol

from gemd import wire
from gemd.errors import (
    BadModelFileError,
    ContextTooLongError,
    InvalidRequestError,
    UnsupportedInputError,
)
from gemd.worker.prompting.control import ControlTexts
from gemd.worker.prompting.template import TemplateRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.worker.prompting.template import ChatTemplate

_PRIVATE_USE = range(0xF0000, 0xF0100)
_MARKUP = re.compile(r"<\|.*>|<.*\|>|\[/?[A-Z_]+\]|<(start|end)_of_\w+>", re.DOTALL)


class Tokenizer(Protocol):
    """What a prompt needs of a vocabulary."""

    size: int
    bos: int
    eos: int
    adds_bos: bool
    adds_eos: bool
    special: frozenset[int]
    control_texts: tuple[str, ...]
    user_defined_texts: tuple[str, ...]

    def text(self, token: int) -> str:
        """The token as it is written in the file."""
        ...

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, continued: bool = False
    ) -> list[int]:
        """Token ids of a text."""
        ...


class PromptBuilder:
    """Turns the input of requests into tokens; used from one thread.

    Args:
        vocabulary: The model's tokenizer.
        template: Its chat template; None if the file has none; what is wrong with it if it
            has one that cannot be used.

    """

    def __init__(
        self, vocabulary: Tokenizer, template: ChatTemplate | BadModelFileError | None
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._control = _control_texts(vocabulary)
        self._takes_system: bool | None = None

    def build(self, prompt: wire.Prompt, *, limit: int, thinking: bool | None = None) -> list[int]:
        """Token ids of an input.

        Args:
            prompt: Exactly one of its fields is set.
            limit: Most tokens that still leave room for an answer.
            thinking: Whether a chat template is to let the model reason first; None is the
                template's own habit.

        Raises:
            ContextTooLongError: There are more.
            InvalidRequestError: It is empty, or names tokens the model does not have.
            UnsupportedInputError: Chat, but the model has no chat template.
            BadModelFileError: Chat, but the model's chat template cannot be used.

        """
        return _fitting(
            self._tokens(prompt, thinking=thinking), limit=limit, what="prompt", field="input"
        )

    def count(self, request: wire.Count) -> wire.Counted:
        """The tokens of a prompt, however long it is.

        Raises:
            GemdError: As `build`.

        """
        tokens = self.build(request.prompt, limit=sys.maxsize)
        return wire.Counted(
            request_id=request.request_id,
            count=len(tokens),
            tokens=tuple(tokens) if request.include_tokens else (),
        )

    def continuation(
        self, given: str | tuple[int, ...], *, limit: int, field: str = "continuations"
    ) -> list[int]:
        """Token ids of what follows a prompt; control tokens are not read in text.

        Args:
            given: Text or ids.
            limit: Most tokens that fit.
            field: Where it stands in the request, for errors.

        Raises:
            GemdError: As `build`.

        """
        if isinstance(given, str):
            tokens = self.continued(given)
        else:
            tokens = self.check_tokens(given, field=field)
        return _fitting(tokens, limit=limit, what="continuation", field=field)

    def continued(self, text: str) -> list[int]:
        """Token ids of a text behind another one; control tokens are not read in it.

        There is no BOS, no space of the tokenizer's own, and for no text no token.
        """
        return self._tokenize(self._cut(text), continued=True) if text else []

    def document(self, text: str, *, limit: int) -> list[int]:
        """Token ids of a text on its own, as the model's tokenizer frames it.

        Raises:
            GemdError: As `build`.

        """
        tokens = self._plain(text) if text else []
        if tokens and self._vocabulary.adds_eos:
            tokens.append(self._vocabulary.eos)
        return _fitting(tokens, limit=limit, what="text", field="texts")

    def check_tokens(self, tokens: Iterable[int], *, field: str) -> list[int]:
        """The same ids, if the model has all of them.

        Raises:
            InvalidRequestError: It does not.

        """
        tokens = list(tokens)
        for token in tokens:
            if not 0 <= token < self._vocabulary.size:
                raise InvalidRequestError(
                    f"token {token} does not exist",
                    why=f"the model's vocabulary has {self._vocabulary.size} tokens",
                    metadata={
                        "field": field,
                        "token": token,
                        "vocabulary": self._vocabulary.size,
                    },
                )
        return tokens

    def _tokens(self, prompt: wire.Prompt, *, thinking: bool | None) -> list[int]:
        if prompt.tokens is not None:
            return self.check_tokens(prompt.tokens, field="input.tokens")
        if prompt.text is not None:
            return self._plain(prompt.text) if prompt.text else []
        return self._chat(prompt.chat or (), thinking=thinking)

    def _plain(self, text: str) -> list[int]:
        return self._begun(self._tokenize(self._cut(text)))

    def _begun(self, tokens: list[int]) -> list[int]:
        return [self._vocabulary.bos, *tokens] if self._vocabulary.adds_bos else tokens

    def _cut(self, text: str) -> list[str]:
        # User-defined tokens are read whatever the flag says, so those that look like
        # markup are cut here as well.
        mark = _unused_character([text])
        return self._control.cut(text, mark).split(mark)

    def _chat(self, messages: tuple[wire.ChatMessage, ...], *, thinking: bool | None) -> list[int]:
        self._renderer()
        if not any(message.text for message in messages):
            return []
        mark = _unused_character(message.text for message in messages)
        turns: list[tuple[str, str]] = [
            (m.role, self._control.fence(m.text, mark)) for m in messages
        ]
        rendered = self._rendered(turns, mark, thinking=thinking)
        tokens = self._tokenize(rendered.split(mark), parse_special=True)
        bos = self._vocabulary.text(self._vocabulary.bos)
        # A template that writes BOS itself must not get a second one.
        return tokens if bos and rendered.startswith(bos) else self._begun(tokens)

    def _rendered(self, turns: list[tuple[str, str]], mark: str, *, thinking: bool | None) -> str:
        """The conversation, with a system turn whatever the template thinks of those."""
        # Older templates refuse a system turn and some drop it without a word; it then
        # opens the first user turn, as the models' authors recommend.
        if turns[0][0] == "system" and turns[0][1].strip() and not self._system_turns(mark):
            turns = _folded(turns)
        try:
            return self._opened(turns, mark, thinking=thinking)
        except TemplateRefusedError as refusal:
            raise InvalidRequestError(
                "the model's chat template rejects this conversation",
                why=str(refusal),
                metadata={"field": "chat"},
            ) from None

    def _system_turns(self, mark: str) -> bool:
        """Whether the template writes what a system turn says; asked once."""
        if self._takes_system is None:
            try:
                rendered = self._renderer().render(
                    [{"role": "system", "content": mark}, {"role": "user", "content": "x"}]
                )
            except (TemplateRefusedError, InvalidRequestError):
                self._takes_system = False
            else:
                self._takes_system = mark in rendered
        return self._takes_system

    def _opened(self, turns: list[tuple[str, str]], mark: str, *, thinking: bool | None) -> str:
        """Rendered up to where the model goes on: a new answer, or the last one begun."""
        template = self._renderer()
        messages = [{"role": role, "content": text} for role, text in turns]
        if turns[-1][0] != "assistant":
            return template.render(messages, thinking=thinking)
        # The client began the answer: render a stand-in for it and cut behind what
        # precedes it, so that the template's end-of-turn is left off.
        stand_in = mark * 3
        messages[-1]["content"] = stand_in
        rendered = template.render(messages, continue_last=True, thinking=thinking)
        head, found, _ = rendered.partition(stand_in)
        if not found:
            raise InvalidRequestError(
                "this model's chat template cannot continue an answer that was begun",
                why="it does not write the last assistant turn",
                advice=("end the conversation with a user turn",),
                metadata={"field": "chat"},
            )
        return head + turns[-1][1]

    def _renderer(self) -> ChatTemplate:
        if self._template is None:
            raise UnsupportedInputError(
                "this model cannot take a chat",
                why="its file has no chat template; it is a base model that continues text",
                advice=("send text instead of messages", "choose an instruction-tuned model"),
                metadata={"field": "chat"},
            )
        if isinstance(self._template, BadModelFileError):
            # A new one: an exception that is raised again keeps every traceback it had.
            problem = self._template
            raise BadModelFileError(problem.message, why=problem.why, advice=problem.advice)
        return self._template

    def _tokenize(
        self, parts: list[str], *, parse_special: bool = False, continued: bool = False
    ) -> list[int]:
        tokens: list[int] = []
        for part in parts:
            tokens += self._vocabulary.tokenize(
                part, add_special=False, parse_special=parse_special, continued=continued
            )
            # As within one text: only what follows a control token begins anew.
            continued = bool(tokens) and tokens[-1] not in self._vocabulary.special
        return tokens


def _fitting(tokens: list[int], *, limit: int, what: str, field: str) -> list[int]:
    if not tokens:
        raise InvalidRequestError(
            f"the {what} is empty",
            why="it has no token at all",
            metadata={"field": field},
        )
    if len(tokens) > limit:
        raise ContextTooLongError(
            f"the {what} has {len(tokens)} tokens, {limit} fit",
            why="the model's context has to hold it and at least one token of the answer",
            advice=(f"shorten the {what}", "raise context_tokens in the settings"),
            metadata={"field": field, "prompt_tokens": len(tokens), "limit": limit},
        )
    return tokens


def _folded(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    (_, system), *rest = turns
    if rest and rest[0][0] == "user":
        return [("user", f"{system}\n\n{rest[0][1]}"), *rest[1:]]
    return [("user", system), *rest]


def _control_texts(vocabulary: Tokenizer) -> ControlTexts:
    """Every text that the tokenizer would read as a control token.

    Tokenizers read user-defined tokens even where control tokens are off. Most of those
    are ordinary text (runs of spaces, HTML tags) and stay; those that look like
    conversation markup are treated as control tokens.
    """
    markup = (text for text in vocabulary.user_defined_texts if _MARKUP.fullmatch(text))
    return ControlTexts([*vocabulary.control_texts, *markup])


def _unused_character(texts: Iterable[str]) -> str:
    """A private-use character that occurs in none of the texts."""
    used = set().union(*(set(text) for text in texts))
    for code in _PRIVATE_USE:
        if chr(code) not in used:
            return chr(code)
    raise InvalidRequestError(
        "the prompt uses every private-use character from U+F0000 to U+F00FF",
        why="one has to be free to keep control tokens out of user text",
        metadata={"field": "input"},
    )
