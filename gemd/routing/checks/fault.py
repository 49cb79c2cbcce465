"""What can be wrong with an answer, as its text alone shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EMPTY: Final = "EMPTY"
TRUNCATED: Final = "TRUNCATED"
REPETITION: Final = "REPETITION"
GARBLED: Final = "GARBLED"
PROMPT_ECHO: Final = "PROMPT_ECHO"
REFUSAL: Final = "REFUSAL"
PLACEHOLDER: Final = "PLACEHOLDER"
LANGUAGE: Final = "LANGUAGE"
CODE_SYNTAX: Final = "CODE_SYNTAX"
JSON_SYNTAX: Final = "JSON_SYNTAX"
ARITHMETIC: Final = "ARITHMETIC"
CONSTRAINT: Final = "CONSTRAINT"
ANSWER_MISSING: Final = "ANSWER_MISSING"

CODES: Final = (
    EMPTY,
    TRUNCATED,
    REPETITION,
    GARBLED,
    PROMPT_ECHO,
    REFUSAL,
    PLACEHOLDER,
    LANGUAGE,
    CODE_SYNTAX,
    JSON_SYNTAX,
    ARITHMETIC,
    CONSTRAINT,
    ANSWER_MISSING,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an answer.

    Attributes:
        code: One of `CODES`.
        message: One clause that a user and the model that mends the answer can both be told.
        severe: Whether the answer cannot be shipped, whatever else speaks for it.

    """

    code: str
    message: str
    severe: bool
