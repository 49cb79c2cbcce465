"""Chat templates from files, in their own process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from gemd.errors import BadModelFileError, ContextTooLongError, InvalidRequestError
from gemd.worker.prompting import renderer
from gemd.worker.prompting.template import LONGEST_CHARS, ChatTemplate, TemplateRefusedError
from tests.support.workers import wait_until_gone

Make = Callable[..., ChatTemplate]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes templates whose processes end with the test."""
    made: list[ChatTemplate] = []

    def new(source: str, patience: float = 5.0) -> ChatTemplate:
        template = ChatTemplate(source, bos="<s>", eos="</s>", patience=patience)
        made.append(template)
        return template

    yield new
    for template in made:
        template.close()


def test_a_template_sees_messages_tokens_and_the_generation_prompt(make: Make) -> None:
    """The variables are those of the Hugging Face ecosystem."""
    template = make(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m['content'] }}]{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}{{ eos_token }}"
    )

    assert template.render(HELLO) == "<s>[user:hello]></s>"
    assert template.render(HELLO, continue_last=True) == "<s>[user:hello]</s>"


def test_a_template_is_told_of_thinking_only_where_a_request_is_about_it(make: Make) -> None:
    """Undefined is what templates that know of it take for their own habit."""
    template = make("{{ enable_thinking if enable_thinking is defined else 'undefined' }}")

    assert template.render(HELLO) == "undefined"
    assert template.render(HELLO, thinking=True) == "True"
    assert template.render(HELLO, thinking=False) == "False"
    assert template.render(HELLO, continue_last=True, thinking=True) == "True"


def test_a_template_may_refuse_and_the_next_request_is_answered(make: Make) -> None:
    """`raise_exception` is the template's own word, not a failure."""
    template = make(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}ok"
    )

    with pytest.raises(TemplateRefusedError, match="no system"):
        template.render([{"role": "system", "content": "x"}])
    assert template.render(HELLO) == "ok"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{% for x in range(10**9) %}{% endfor %}",
    ],
)
def test_the_sandbox_holds(make: Make, source: str) -> None:
    """Ways into the interpreter are an error with a reason, and change nothing."""
    template = make(source)

    with pytest.raises(InvalidRequestError) as caught:
        template.render(HELLO)
    assert caught.value.why


def test_what_the_sandbox_hides_is_not_printed(make: Make) -> None:
    """Unsafe attributes are undefined, so a template learns nothing from them."""
    assert make("{{ messages.__class__ }}").render(HELLO) == ""


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
BOMB = (
    "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s|length }}"
)


def test_an_endless_template_is_stopped_and_its_process_is_gone(make: Make) -> None:
    """The next rendering starts a new process and is stopped again."""
    template = make(LOOP, patience=0.3)

    for _ in range(2):
        with pytest.raises(BadModelFileError, match="stopped"):
            template.render(HELLO)
    assert not [
        child for child in psutil.Process().children() if "renderer.py" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("source", [BOMB, "{{ 'x' * 10**10 }}", "{{ '%1000000000d' % 1 }}"])
def test_a_template_that_wants_all_memory_gets_an_error(make: Make, source: str) -> None:
    """The limit is on its own process; the worker's memory is not touched."""
    template = make(source, patience=20)
    before = psutil.Process().memory_info().rss

    with pytest.raises((InvalidRequestError, BadModelFileError)):
        template.render(HELLO)
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_turns_that_no_context_holds_are_not_the_templates_fault(make: Make) -> None:
    """They are refused as a prompt that is too long, with their size; the next one is answered."""
    template = make("{% for m in messages %}{{ m.content }}{% endfor %}")
    half = "x" * (LONGEST_CHARS // 2)
    turns = [{"role": "user", "content": half}, {"role": "assistant", "content": half + "x"}]
    with pytest.raises(ContextTooLongError) as caught:
        template.render(turns)
    assert caught.value.metadata["characters"] == str(LONGEST_CHARS + 1)
    assert template.render([{"role": "user", "content": "Hi"}]) == "Hi"
    assert LONGEST_CHARS == renderer.OUTPUT_CHARS


def test_a_flood_of_output_is_cut(make: Make) -> None:
    """No prompt needs eight million characters."""
    template = make("{% for i in range(90000) %}" + "x" * 200 + "{% endfor %}", patience=20)

    with pytest.raises(InvalidRequestError, match="failed") as caught:
        template.render(HELLO)
    assert "characters" in caught.value.why


@pytest.mark.parametrize(
    "source,reason",
    [
        ("{% if %}", "TemplateSyntaxError"),
        ("{{", "TemplateSyntaxError"),
        ("{% for x in %}{% endfor %}", "TemplateSyntaxError"),
        ("{{ x | no_such_filter }}", "TemplateAssertionError"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "RecursionError"),
        # Jinja takes it, and Python refuses what Jinja makes of it.
        ("{% for x in y %}" * 30 + "{% endfor %}" * 30, "SyntaxError"),
    ],
)
def test_a_template_that_does_not_compile_is_a_bad_model_file(
    make: Make, source: str, reason: str
) -> None:
    """Said at load time, with the compiler's own reason."""
    with pytest.raises(BadModelFileError) as caught:
        make(source)
    assert reason in caught.value.why


@pytest.mark.slow
def test_a_template_that_computes_while_it_is_compiled_ends_by_itself() -> None:
    """Constants are folded then; the process has a limit of its own, whoever waits for it."""
    process = subprocess.Popen(
        [sys.executable, "-P", renderer.__file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    start = {"template": "{{ 10 ** (10 ** 9) }}", "bos": "", "eos": ""}
    answer, _ = process.communicate(json.dumps(start).encode() + b"\n", timeout=60)

    assert (answer, process.returncode) == (b"", -signal.SIGXCPU)


WORKER = f"""
from gemd.worker.prompting.template import ChatTemplate
template = ChatTemplate({LOOP!r}, bos="", eos="", patience=60)
print(template._process.pid, flush=True)
template.render([])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere its limit of processor time ends it")
def test_a_template_that_loops_dies_with_its_worker() -> None:
    """A kill -9 leaves nothing behind that computes for nobody."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    with worker:
        assert worker.stdout is not None
        looping = int(worker.stdout.readline())
        worker.kill()
    assert wait_until_gone(looping, seconds=1) < 1


NESTED = "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}"


@pytest.mark.parametrize(
    "source",
    [
        NESTED,
        "{% set f = messages[0].content.format %}{{ f.__self__.__class__.__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) | length // 0 }}",
        "{{ (messages | map(attribute='__class__') | first).__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ messages | tojson(indent=10**9) }}",
        "{{ lipsum(n=99999999) }}",
        "{{ strftime_now('%Y' * 10**9) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.sys.exit() }}",
        "{{ ['x'] * 10**9 }}",
        "{{ messages[0].content | center(2**40) }}",
        "{% for i in range(100000) %}{{ i | string | center(100000) }}{% endfor %}",
    ],
)
def test_hostile_templates_end_in_an_error_and_the_next_one_is_served(
    make: Make, source: str
) -> None:
    """Recursion, sizes, files, the interpreter: a named error within the time allowed."""
    template = make("{% if messages[0].content == 'hello' %}" + source + "{% endif %}ok", 2.0)

    with pytest.raises((InvalidRequestError, BadModelFileError)) as caught:
        template.render(HELLO)
    assert caught.value.why
    assert template.render([{"role": "user", "content": "other"}]) == "ok"


def test_what_real_templates_use_is_there(make: Make) -> None:
    """Loop controls, the generation mark, the date, JSON as the ecosystem writes it."""
    template = make(
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% continue %}never{% endfor %}"
        "|{{ strftime_now('%d %b %Y') | length }}"
        "|{{ {'z': '<é>', 'a': [1]} | tojson }}|{{ [1] | tojson(indent=1) }}"
        "|{{ tools is none }}{{ enable_thinking is defined }}"
        "|{{ messages[0].content.split('l')[-1] }}"
    )

    turns = [*HELLO, {"role": "assistant", "content": "unseen"}]
    assert template.render(turns) == 'hello|11|{"z": "<é>", "a": [1]}|[\n 1\n]|TrueFalse|o'


def test_a_renderer_that_somebody_else_ended_is_started_again(make: Make) -> None:
    """The kernel may pick it when memory runs out; no conversation is to blame."""
    template = make("ok")
    assert template._process is not None
    template._process.kill()
    template._process.wait()

    assert template.render(HELLO) == "ok"


def test_a_renderer_that_cannot_be_started_is_a_conversations_loss(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for a process is said to whoever asked; the worker and the next one go on."""
    template = make("ok")
    template.close()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        with pytest.raises(BadModelFileError, match="Cannot allocate memory"):
            template.render(HELLO)
    assert template.render(HELLO) == "ok"
