"""Whether code and JSON in an answer can be read by a machine."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from typing import Final

from gemd.routing.checks.fault import CODE_SYNTAX, JSON_SYNTAX, Fault
from gemd.routing.checks.text import Block, blocks, listed

_LONGEST: Final = 20_000
"""Characters of code that are parsed: a syntax tree takes some hundred times its source."""
_DEEPEST: Final = 60
"""Brackets in one another, and operators in a row, that are handed to a parser: more overflow its
stack."""
_MOST_BLOCKS: Final = 60
_PYTHON: Final = frozenset({"python", "py", "python3", "py3"})
_JSON: Final = frozenset({"json"})
_SLASHES: Final = listed(
    "js javascript ts typescript jsx tsx java c cpp c++ csharp cs go golang rust rs kotlin kt "
    "swift scala dart"
)
_NO_SCRIPT: Final = re.compile(
    r"^\s*(?:>>>|\.\.\. |[$!%]|In \[\d+\]|pip install|python3? |-?\d+\.?\d*\s*$)"
    # Syntax that a newer Python has.
    r"|^\s*type [A-Za-z_]\w*\s*(?:\[.*\])?\s*="
    r"|^\s*(?:async\s+)?(?:def|class)\s+\w+\["
    r"|^\s*(?:\.\.\.|…|<[a-z ]+>)\s*$",
    re.MULTILINE,
)
_OLD_PYTHON: Final = re.compile(
    r"python ?2|syntax ?error|doesn't (?:run|parse|compile)|broken", re.IGNORECASE
)
_TOO_NEW: Final = ("f-string", "parenthesized context", "t-string")
_UNARY_RUN: Final = re.compile(r"(?:[-+~]\s*|not\s+|await\s+|lambda\s*:\s*|\*\*?\s*){40,}")
_CHAIN: Final = re.compile(r"[-+*/%|&^.@<>=(\[]|\b(?:and|or|if|else|for|in|is|elif)\b")
_MOST_CHAINED: Final = 700
"""Operators in one logical line. Each makes the tree one level deeper."""

_JSON_WANTED: Final = re.compile(
    r"\b(?:in|as|into|only|valid|return|output|respond with|reply with|answer with|produce|provide)"
    r"\s+(?:(?:a|an|the|only|valid|pure|raw|strict|single|well-formed)\s+){0,3}json\b"
    r"|\bjson (?:format|only|output)\b"
    r"|\b(?:als|im|in|gültiges)\s+json\b|\b(?:en|au format|format)\s+json\b",
    re.IGNORECASE,
)
_ABOUT_JSON: Final = re.compile(
    r"\b(?:function|script|program|class|code|parse[rs]?|parsing|library|api|endpoint|regex|"
    r"difference|what is|explain|why|convert|python|javascript|java|rust|bash|jq|sql|funktion|"
    r"programm|fonction|función|yaml or|json or|or json|file|schema)\b",
    re.IGNORECASE,
)
_ELLIPSIS: Final = re.compile(r"\.{3}|…|//|/\*|<[a-z_ ]+>")
_JS_REGEX: Final = re.compile(r"[=(,:!&|?]\s*/(?![/*])[^\n/]*[(\[{)\]}\"'`]")
_ELLIPSIS_LINE: Final = re.compile(r"^\s*(?://|/\*|#)?\s*(?:\.{3}|…)", re.MULTILINE)
_SCRIPTS: Final = listed("js javascript ts typescript jsx tsx dart")
"""Languages with strings in single quotes. In others one is a character, or a lifetime in Rust."""
_STRINGS: Final = re.compile(
    r"//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?"
    r'|"(?:[^"\\\n]|\\.)*+"?|`(?:[^`\\]|\\.)*+`?'
    r"|'(?:[^'\\\n]|\\.)*+'?"
)
_STRINGS_AND_CHARACTERS: Final = re.compile(
    r"//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?"
    r'|"(?:[^"\\]|\\.)*+"?|`(?:[^`\\]|\\.)*+`?'
    r"|'(?:[^'\\\n]|\\[^\n]{1,8}?)'"
)
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}


def code_faults(asked: str, answer: str) -> list[Fault]:
    """CODE_SYNTAX and JSON_SYNTAX.

    Python that does not parse is severe if no block of the answer does, and not where the question
    is about broken or old code. JSON that does not parse is severe if JSON was asked for. Brackets
    of other languages that do not match are no proof: an excerpt may leave some open.
    """
    parts = blocks(answer)[:_MOST_BLOCKS]
    tried = (_python(asked, parts), _brackets(parts), _json(asked, answer, parts))
    return [fault for fault in tried if fault]


def _python(asked: str, parts: tuple[Block, ...]) -> Fault | None:
    tried = [each for each in parts if each.code and each.closed and each.language in _PYTHON]
    wrong = [(error, each) for each in tried if (error := python_error(each.text))]
    if not wrong or _OLD_PYTHON.search(asked[:4000]):
        return None
    if any(each.text.strip() in asked for _, each in wrong):
        return None
    error = wrong[0][0]
    return Fault(
        CODE_SYNTAX,
        f"the Python code does not parse: {error}",
        severe=len(wrong) == len(tried),
    )


def python_error(code: str) -> str:
    """What Python's parser says against it; empty if nothing, or if it is not given to it.

    Long and deeply nested code is not: the parser's stack and memory have limits. Nor are
    transcripts of a shell, excerpts with gaps, and syntax newer than this interpreter's.
    """
    if len(code) > _LONGEST or _too_deep(code) or _NO_SCRIPT.search(code):
        return ""
    code = textwrap.dedent(code).strip("\n")
    try:
        with warnings.catch_warnings():
            # Doubtful escapes are not wrong.
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        if error.msg.startswith((*_TOO_NEW, "too many")):
            return ""
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError):
        return ""
    return ""


def _too_deep(code: str) -> bool:
    depth = deepest = 0
    for character in code:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    if deepest > _DEEPEST or _UNARY_RUN.search(code):
        return True
    indent = max((len(line) - len(line.lstrip()) for line in code.splitlines()), default=0)
    # Brackets and backslashes join lines, so all operators count together in long statements.
    longest = max(map(len, code.split("\n")), default=0)
    chained = len(_CHAIN.findall(code))
    return indent > 4 * _DEEPEST or (chained > _MOST_CHAINED and longest > _LONGEST // 10)


def json_error(text: str) -> str:
    """What is wrong with JSON; empty if nothing, or if it is too long or deep to be read here."""
    if len(text) > 5 * _LONGEST or text.count("[") + text.count("{") > 5 * _LONGEST // 10:
        return ""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError):
        return ""
    return ""


def wants_json(asked: str) -> bool:
    """Whether JSON is asked for, and not a program or an explanation of it."""
    around = asked[:1500] + "\n" + asked[-1500:]
    return bool(_JSON_WANTED.search(around)) and not _ABOUT_JSON.search(around)


def _json(asked: str, answer: str, parts: tuple[Block, ...]) -> Fault | None:
    wanted = wants_json(asked)
    fenced = [each.text for each in parts if each.code and each.language in _JSON]
    if not fenced and wanted:
        fenced = [each.text for each in parts if each.code]
    bare = answer.strip()
    if not fenced and bare[:1] in {"{", "["} and (wanted or re.match(r"[\[{]\s*[\"{]", bare)):
        fenced = [bare]
    if not fenced and wanted:
        return (
            None
            if _embedded(bare)
            else Fault(
                JSON_SYNTAX, "JSON was asked for, and there is none in the answer", severe=True
            )
        )
    for text in fenced:
        error = json_error(text.strip())
        if error and not _lines_parse(text) and (wanted or not _ELLIPSIS.search(text)):
            return Fault(JSON_SYNTAX, f"the JSON does not parse: {error}", severe=wanted)
    return None


def _embedded(text: str) -> bool:
    """Whether JSON begins at the first bracket of a text, or it is a JSON value itself."""
    if not json_error(text):
        return True
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    decoder = json.JSONDecoder()
    for start in sorted(starts):
        try:
            decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            continue
        except (ValueError, RecursionError):
            return True
        return True
    return False


def _lines_parse(text: str) -> bool:
    """Whether it is one JSON value a line."""
    lines = [line for line in text.splitlines() if line.strip()][:200]
    return len(lines) > 1 and not any(map(json_error, lines))


def _brackets(parts: tuple[Block, ...]) -> Fault | None:
    for block in parts:
        if block.code and block.closed and block.language in _SLASHES:
            wrong = unbalanced(block.text, block.language)
            if wrong:
                return Fault(CODE_SYNTAX, f"in the {block.language} code {wrong}", severe=False)
    return None


def unbalanced(code: str, language: str) -> str:
    """Which bracket has no partner outside strings and comments of C's kind; empty for none."""
    if len(code) > _LONGEST or _JS_REGEX.search(code) or _ELLIPSIS_LINE.search(code):
        return ""
    strings = _STRINGS if language in _SCRIPTS else _STRINGS_AND_CHARACTERS
    opened: list[str] = []
    for character in strings.sub(" ", code):
        if character in "([{":
            opened.append(character)
        elif character in _PAIRS and (not opened or opened.pop() != _PAIRS[character]):
            return f"«{character}» closes nothing"
    return f"«{opened[-1]}» is not closed" if opened else ""
