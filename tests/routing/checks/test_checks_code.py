"""Code and JSON in answers: what cannot be read by a machine, and what only looks like it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks.code import code_faults, json_error, python_error, unbalanced, wants_json
from gemd.routing.checks.fault import CODE_SYNTAX, JSON_SYNTAX


def fenced(language: str, code: str) -> str:
    """An answer with a code block."""
    return f"Here it is:\n\n```{language}\n{code}\n```\n"


@pytest.mark.parametrize(
    "code",
    [
        "def f(:\n    pass",
        "for i in range(3)\n    print(i)",
        "print('a",
        "if x:\nreturn 1",
        "x = (1, 2",
        'print "hello"',
    ],
)
def test_python_that_does_not_parse_is_severe(code: str) -> None:
    """If there is no other Python in the answer."""
    (fault,) = code_faults("Write a function", fenced("python", code))
    assert (fault.code, fault.severe) == (CODE_SYNTAX, True)


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    return x + 1",
        "    x = 1\n    y = 2",
        "import re\nre.match('\\d', 'a')",
        ">>> 1 +\n...",
        "pip install requests",
        "!ls\n%time f(",
        "def first[T](items: list[T]) -> T: ...",
        "type Pair[T] = tuple[T, T]",
        "x = f'{d['a']}'",
        "async def f():\n    await g()",
        "await g()",
        "match x:\n    case [1, *rest]:\n        pass",
        "items = [\n    1,\n    ...\n]",
    ],
)
def test_python_that_can_be_meant_is_right(code: str) -> None:
    """Fragments, transcripts, doubtful escapes, and what a newer Python reads."""
    assert code_faults("Write it", fenced("python", code)) == []


def test_one_block_that_parses_takes_the_edge_off() -> None:
    """The other one may be an excerpt."""
    answer = fenced("python", "x = 1") + fenced("python", "def f(:")
    (fault,) = code_faults("Write it", answer)
    assert not fault.severe


def test_questions_about_broken_code_are_left_alone() -> None:
    """Their answers show it."""
    broken = fenced("python", "print 'a'")
    assert code_faults("Why is this a syntax error?", broken) == []
    assert code_faults("What does this do?\nprint 'a'", broken) == []


BOMBS = {
    "brackets": "'(' * 100000 + ')' * 100000",
    "signs": "'x=' + '-' * 19000 + '1'",
    "not": "'not ' * 4900 + 'x'",
    "sum": "'x=' + '+1' * 9900",
    "sum over lines": "'x=(' + '1+\\n' * 6000 + '1)'",
    "attributes": "'x' + '.a' * 9900",
    "calls": "'f' + '()' * 9900",
    "powers": "'x=' + '2**' * 6000 + '1'",
    "conditions": "'x=' + '1 if a else ' * 1600 + '1'",
    "lambdas": "'x=' + 'lambda:' * 2800 + '1'",
    "indents": "''.join(' ' * i + 'if x:\\n' for i in range(190))",
    "branches": "'if a: pass\\n' + 'elif a: pass\\n' * 1500",
    "digits": "'9' * 19000",
    "nulls": "'\\0' * 50",
    "fields": "'f\"' + '{' * 10000",
    "short nests": "'x=' + '-(\\n' * 59 + '1' + ')' * 59",
}


def test_no_code_hurts_the_process() -> None:
    """Each of these overflows a parser's stack somewhere; a process of its own survives."""
    lines = [f"python_error({bomb})" for bomb in BOMBS.values()]
    program = "\n".join(["from gemd.routing.checks.code import python_error", *lines])
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    "language, code",
    [
        ("js", "function f() { return [1, 2; }"),
        ("rust", 'fn main() { println!("a" }'),
        ("java", "class A { void f() { }"),
        ("c", "int main(void) { return 0; }}"),
    ],
)
def test_brackets_of_other_languages_are_counted(language: str, code: str) -> None:
    """What does not match is a fault, no severe one."""
    (fault,) = code_faults("Write it", fenced(language, code))
    assert (fault.code, fault.severe) == (CODE_SYNTAX, False)


@pytest.mark.parametrize(
    "code",
    [
        "let s = \"(\"; // (\n/* ( */ f('[');",
        "fn f<'a>(x: &'a str) -> &'a str { x }",
        "char c = '{'; char q = '\\'';",
        "const r = /[(]/;",
        "const t = `a ${b} (`;",
        "function f() {\n  // ...\n",
        "x = 1;",
    ],
)
def test_brackets_in_strings_and_comments_do_not_count(code: str) -> None:
    """Nor those of an excerpt that says that it is one."""
    assert unbalanced(code, "js" if "const" in code or "let" in code else "rust") == ""


@pytest.mark.parametrize(
    "asked",
    [
        "Give me the three largest cities in JSON.",
        "Return only JSON with name and age for Ann, who is 30.",
        "Respond with a valid JSON object.",
        "Nenne drei Städte als JSON.",
        "Donne trois villes au format JSON.",
        "Da tres ciudades en JSON.",
    ],
)
def test_json_that_was_asked_for_has_to_parse(asked: str) -> None:
    """Anything else is severe: bad JSON, or none."""
    assert wants_json(asked)
    assert code_faults(asked, '{"a": 1}') == []
    assert code_faults(asked, fenced("json", '[{"a": 1}]')) == []
    for wrong in ('{"a": 1,}', fenced("json", "{'a': 1}"), "Ann is thirty."):
        (fault,) = code_faults(asked, wrong)
        assert (fault.code, fault.severe) == (JSON_SYNTAX, True)


@pytest.mark.parametrize(
    "asked",
    [
        "What is JSON?",
        "Write a Python function that returns JSON.",
        "Explain the difference between YAML and JSON.",
        "How do I parse a JSON file in Go?",
        "Who invented tea?",
    ],
)
def test_questions_about_json_do_not_ask_for_it(asked: str) -> None:
    """Their answers may be prose."""
    assert not wants_json(asked)
    assert code_faults(asked, "It is a notation.") == []


def test_json_that_was_not_asked_for_is_no_severe_fault() -> None:
    """With an ellipsis it is an example and none at all; lines of JSON are right."""
    (fault,) = code_faults("Show me", fenced("json", '{"a": }'))
    assert not fault.severe
    assert code_faults("Show me", fenced("json", '{"a": ...}')) == []
    assert code_faults("Show me", fenced("json", '{"a": 1}\n{"a": 2}')) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_real_json_parses(value: object) -> None:
    """Whatever Python writes."""
    assert json_error(json.dumps(value)) == ""


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_is_too_odd(asked: str, code: str) -> None:
    """Nothing raises and nothing warns."""
    for language in ("python", "json", "js", ""):
        code_faults(asked, fenced(language, code))
    python_error(code)
    unbalanced(code, "js")
