"""Chat templates from files, in their own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest

from gemd.errors import BadModelFileError, InvalidRequestError
from gemd.worker.llama.template import ChatTemplate, TemplateRefusedError

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


def test_a_flood_of_output_is_cut(make: Make) -> None:
    """No prompt needs eight million characters."""
    template = make("{% for i in range(90000) %}" + "x" * 200 + "{% endfor %}", patience=20)

    with pytest.raises(InvalidRequestError, match="failed") as caught:
        template.render(HELLO)
    assert "characters" in caught.value.why


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for x in %}{% endfor %}"])
def test_a_template_that_does_not_compile_is_a_bad_model_file(make: Make, source: str) -> None:
    """Said at load time, with Jinja's own reason."""
    with pytest.raises(BadModelFileError) as caught:
        make(source)
    assert "TemplateSyntaxError" in caught.value.why
