"""What kind of task a prompt is, by the words that ask for it. Pure.

Keywords of four languages (English, German, French, Spanish) at the two places where a request
stands, the beginning and the end; the earliest one counts. A text without any is judged by what
it looks like.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from gemd.routing.prompt.openings import Openings, words_in
from gemd.routing.prompt.window import window


class Task(enum.Enum):
    """The kind of a task."""

    REWRITE = "REWRITE"
    SUMMARISE = "SUMMARISE"
    CLASSIFY = "CLASSIFY"
    EXTRACT = "EXTRACT"
    TRANSLATE = "TRANSLATE"
    FACT = "FACT"
    MATH = "MATH"
    CODE = "CODE"
    DEBUG = "DEBUG"
    REASONING = "REASONING"
    WRITING = "WRITING"
    CHAT = "CHAT"
    OTHER = "OTHER"

    @property
    def easy(self) -> bool:
        """Whether small models do such tasks about as well as large ones."""
        return self in _EASY

    @property
    def hard(self) -> bool:
        """Whether such tasks are where small models fall behind."""
        return self in _HARD


_EASY: Final = frozenset(
    {Task.REWRITE, Task.SUMMARISE, Task.CLASSIFY, Task.EXTRACT, Task.TRANSLATE, Task.CHAT}
)
_HARD: Final = frozenset({Task.MATH, Task.DEBUG, Task.REASONING})

HEAD_CHARS: Final = 600
TAIL_CHARS: Final = 400
"""Where a request stands that is about a text of its own."""

_PROGRAM: Final = (
    r"(?:code|function|program|script|method|class|quer(?:y|ies)|regex|unit tests?|loop|api"
    r"|funktion|programm|skript|fonction|programme|función|programa)s?\b"
)
_LANGUAGE: Final = r"(?:python|java(?:script)?|typescript|rust|golang|c\+\+|sql|bash)"
_TEXT_KINDS: Final = (
    r"(?:essays?|stor(?:y|ies)|poems?|articles?|blogs?|posts?|letters?|e-?mails?|speech|songs?"
    r"|lyrics|haikus?|tweets?|headlines?|slogans?|reviews?|biography|aufsatz|geschichte|gedicht"
    r"|brief|artikel|rede|histoire|poème|lettre|discours|cuento|historia|poema|carta|artículo"
    r"|discurso|ensayo)\b"
)
WRITING_VERBS: Final = (
    "write compose draft create tell give generate produce prepare schreib schreibe schreiben "
    "verfass verfasse verfassen dichte erstelle erstellen écris écrire écrivez rédige rédiger "
    "rédigez crée créer escribe escribir escriba redacta redactar crea crear"
)
BUILDING_VERBS: Final = "build implement develop code program entwickle entwickeln développe"
_OBJECT: Final = r"[^.\n]{0,80}?\b"
"""What may stand between a verb and its object."""

_RULES: Final = Openings(
    (
        (
            Task.DEBUG,
            "debug traceback stacktrace segfault syntaxerror typeerror valueerror keyerror",
            r"\b",
        ),
        (
            Task.DEBUG,
            "fix find correct solve repair",
            rf"\b[^.\n]{{0,40}}?\b(?:bugs?\b|errors? in\b|{_PROGRAM})",
        ),
        (Task.DEBUG, "wrong", rf" with[^.\n]{{0,40}}?\b{_PROGRAM}"),
        (
            Task.DEBUG,
            "code function program script test tests",
            r"\b[^.\n]{0,40}?\b(?:fails?|crash(?:es)?|do(?:es)?n['’]t work|not work(?:ing)?)\b",
        ),
        (
            Task.TRANSLATE,
            (
                "translate translation translating übersetz übersetze übersetzen übersetzt "
                "übersetzung traduis traduire traduisez traduction traduce traducir traduzca "
                "traducción"
            ),
            r"\b",
        ),
        (Task.TRANSLATE, "say", r"[^.?\n]{1,60} in (?:english|german|french|spanish|italian)\b"),
        (
            Task.SUMMARISE,
            (
                "summarise summarize summary summarising summarizing zusammenfassung "
                "zusammenfassen résume résumer résumez resume resumir resumen tldr"
            ),
            r"\b",
        ),
        (Task.SUMMARISE, "tl", r";?dr\b"),
        (Task.SUMMARISE, "fasse fass", rf"\b{_OBJECT}zusammen\b"),
        (Task.SUMMARISE, "key main", r" (?:points|takeaways|ideas)\b"),
        (
            Task.CLASSIFY,
            (
                "classify categorise categorize sentiment klassifiziere klassifizieren classifie "
                "classifier classe clasifica clasificar"
            ),
            r"\b",
        ),
        (Task.CLASSIFY, "label", r" (?:the|this|each)\b"),
        (Task.CLASSIFY, "ordne", rf"\b{_OBJECT}zu\b"),
        (
            Task.EXTRACT,
            "extract extrahiere extrahieren extrais extraire extrayez extrae extraer",
            r"\b",
        ),
        (
            Task.EXTRACT,
            "list find",
            r" all (?:of )?(?:the )?(?:names|dates|e-?mails|numbers|entities|people|places)\b",
        ),
        (
            Task.REWRITE,
            (
                "rewrite rephrase paraphrase reword proofread shorten umformulieren korrigiere "
                "korrigieren reformule reformuler corrige corriger corregir reescribe reescribir "
                "reformula"
            ),
            r"\b",
        ),
        (
            Task.REWRITE,
            "fix correct improve check",
            r" (?:the |my |this |any )?(?:grammar|spelling|typos?|wording|style)\b",
        ),
        (Task.REWRITE, "simplify", r" (?:this|the) (?:text|sentence|paragraph)\b"),
        (
            Task.REWRITE,
            "make",
            (
                r" (?:this|it|the (?:text|e-?mail)) "
                r"(?:more|less|sound|shorter|longer|formal|friendlier)\b"
            ),
        ),
        (Task.REWRITE, "formuliere", rf"\b{_OBJECT}um\b"),
        (Task.CODE, f"{WRITING_VERBS} {BUILDING_VERBS}", rf"\b{_OBJECT}{_PROGRAM}"),
        (Task.CODE, "in using mit en", rf" {_LANGUAGE}(?!\w)"),
        (Task.CODE, "refactor leetcode", r"\b"),
        (Task.CODE, "competitive", r" programming\b"),
        (
            Task.MATH,
            (
                "calculate compute integrate differentiate derivative equation equations beweise "
                "berechne berechnen rechne löse gleichung démontre démontrez calcule calculer "
                "calculez résous résoudre équation combien demuestra calcula resuelve ecuación "
                "cuánto cuánta cuántos cuántas"
            ),
            r"\b",
        ),
        (Task.MATH, "prove", r" that\b"),
        (Task.MATH, "solve", r" (?:the|for|this|it)\b"),
        (Task.MATH, "integral probability", r" (?:of|that)\b"),
        (Task.MATH, "mathematical mathematics math", r"\b"),
        (Task.MATH, "how", r" (?:many|much)\b[^?\n]{0,200}\?"),
        (Task.MATH, "wie", r" ?viele?\b"),
        (
            Task.REASONING,
            "deduce infer puzzle riddle rätsel énigme acertijo tradeoff tradeoffs",
            r"\b",
        ),
        (Task.REASONING, "step", r"[- ]by[- ]step\b"),
        (Task.REASONING, "reason", r" (?:about|through)\b"),
        (Task.REASONING, "logic logical", r" (?:puzzle|problem)\b"),
        (Task.REASONING, "think", r" (?:carefully|it through|hard)\b"),
        (Task.REASONING, "schritt", r" für schritt\b"),
        (Task.REASONING, "étape", r" par étape\b"),
        (Task.REASONING, "paso", r" a paso\b"),
        (Task.REASONING, "compare", r" and contrast\b"),
        (Task.REASONING, "trade", r"-offs?\b"),
        (Task.WRITING, WRITING_VERBS, rf"\b{_OBJECT}{_TEXT_KINDS}"),
        (Task.WRITING, "brainstorm", r"\b"),
    )
)
_GREETING: Final = re.compile(
    r"\W{0,5}(?:hi|hello|hey|good (?:morning|evening|afternoon)|thanks?|thank you|how are you|bye"
    r"|ok(?:ay)?|hallo|guten (?:tag|morgen|abend)|danke|tschüss|bonjour|salut|merci|hola|gracias"
    r"|buenos días)\b[^\n]{0,60}\Z",
    re.IGNORECASE,
)
_QUESTIONS: Final = Openings(
    (
        (
            Task.FACT,
            (
                "who what when where which whose whom is are was were does did do wer wann wo "
                "welche welcher welches qui quel quelle quels quelles quand où quién qué cuándo "
                "dónde cuál"
            ),
            r"\b[^?\n]{0,400}\?",
        ),
    )
)
_FORMULA: Final = re.compile(r"[\d)\w]\s?[-+*/^×÷=]\s?\d|\\(?:frac|sum|int|sqrt)\b|[∑∫√∞≤≥∂]")
_SOURCE: Final = re.compile(
    r"```|\bdef \w{1,40}\(|^[ \t]{0,12}(?:class|import|#include|public|const|let) ", re.MULTILINE
)


def task_of(text: str) -> Task:
    """The kind of task that a text asks for.

    Args:
        text: The last user turn, of any length.

    """
    seen = window(text, HEAD_CHARS, TAIL_CHARS)
    said = words_in(seen)
    found = _RULES.first(seen, said)
    if found is not None:
        return found[0]
    if _GREETING.match(seen):
        return Task.CHAT
    if _SOURCE.search(seen):
        return Task.CODE
    if _FORMULA.search(seen):
        return Task.MATH
    return Task.OTHER if _QUESTIONS.first(seen, said) is None else Task.FACT
