"""What a request demands of its answer's form, as values; `limits` and `demands` read them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final


class Demand(enum.Enum):
    """What is demanded."""

    WORDS = "words"
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    ITEMS = "list items"
    UPPER = "UPPER"
    LOWER = "LOWER"
    FORBIDDEN = "FORBIDDEN"
    REQUIRED = "REQUIRED"
    STARTS = "STARTS"
    ENDS = "ENDS"
    QUOTED = "QUOTED"
    NO_COMMAS = "NO_COMMAS"
    TITLE = "TITLE"
    GAPS = "GAPS"
    POSTSCRIPT = "POSTSCRIPT"
    LANGUAGE = "LANGUAGE"
    BOXED = "BOXED"
    TABLE = "TABLE"
    YES_NO_ALONE = "YES_NO_ALONE"


@dataclass(frozen=True, slots=True)
class Constraint:
    """One demand.

    Attributes:
        demand: What of.
        low: The least number of it.
        high: The greatest; None for no limit.
        phrase: The word, the phrase, or the language's code.
        about: Whether the number is a wish and no limit; `low` and `high` are then wide.

    """

    demand: Demand
    low: int = 0
    high: int | None = None
    phrase: str = ""
    about: bool = False


_LOOKED_AT: Final = 2000
_CODE: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTED_LINE: Final = re.compile(r"^[ \t]*>[^\n]*$", re.MULTILINE)
_LONG_QUOTE: Final = re.compile(r"\"\"\".*?\"\"\"|[\"“«„][^\"”»“«„\n]{80,}[\"”»“]", re.DOTALL)
_SENTENCE: Final = re.compile(r"(?<=[.!?。])\s+|\n+|(?<=:)\s+(?=[^\W\d_])")
_INSTRUCTION: Final = re.compile(
    r"^\W*(?:in|with|without|at|no|only|max|exactly|mit|en|con|auf)\b|\?\s*$|\\boxed\b"
    r"|\b(?:write|answer|respond|reply|summari[sz]e|explain|describe|list|give|tell|use|keep|limit|"
    r"make|create|compose|draft|generate|produce|provide|return|output|include|contain|mention|"
    r"avoid|refrain|do not|don't|must|should|ensure|end|finish|start|begin|wrap|add|outline|name|"
    r"put|define|rewrite|rephrase|state|compare|discuss|suggest|recommend|translate|"
    r"response|schreib\w*|antwort\w*|beantwort\w*|erklär\w*|beschreib\w*|fass\w*|nenn\w*|"
    r"gib|geben|verwend\w*|benutz\w*|beginn\w*|vermeid\w*|übersetz\w*|"
    r"écri\w*|répond\w*|réponse|expliqu\w*|décri\w*|résum\w*|donn\w*|utilis\w*|évit\w*|"
    r"rédige\w*|liste\w*|commence\w*|termine\w*|tradui\w*|"
    r"escrib\w*|respond\w*|respuesta|explic\w*|describ\w*|resum\w*|da|dame|enumera|usa|"
    r"utiliza|evita|traduce)\b",
    re.IGNORECASE,
)
_ABOUT_SOMETHING_ELSE: Final = re.compile(
    r"\b(?:function|program|script|consists?|strings?|characters?|regex|algorithm|method that|"
    r"class that|code that|"
    r"(?:which|that|who|text|article|essay|email|document|book|story|it|he|she|they) "
    r"(?:has|had|have|contains?|contained|says?|said|uses?|used|begins?|began|starts?|started)|"
    r"explanation|feedback|reasoning|each|every|per|respectively|how many|why|is it|does|did|"
    r"funktion|programm|jede\w*|erklärung|fonction|programme|chaque|función|programa|cada)\b",
    re.IGNORECASE,
)


def instructions(asked: str) -> tuple[str, ...]:
    """Its sentences that may say something of the answer's form.

    Of a long request its head and tail; without code, quoted lines and long quotations, which may
    hold demands that are none. Sentences about programs, explanations or other texts are left out:
    «a script that prints at most 10 words» limits nothing here.
    """
    if len(asked) > 2 * _LOOKED_AT:
        asked = f"{asked[:_LOOKED_AT]}\n{asked[-_LOOKED_AT:]}"
    plain = _LONG_QUOTE.sub(" ", _QUOTED_LINE.sub("", _CODE.sub("\n", asked)))
    return tuple(
        sentence.strip()
        for sentence in _SENTENCE.split(plain.replace("’", "'"))
        if _INSTRUCTION.search(sentence) and not _ABOUT_SOMETHING_ELSE.search(sentence)
    )
