from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import InvalidRequestError, UnsupportedInputError
from gemd.routing.request import Mode, Tier
from gemd.rpc.convert.fields import page, required_model_id
from gemd.rpc.convert.requests import (
    client_name,
    count_request,
    embed_request,
    generate_request,
    optional_model,
    score_request,
)
from gemd.v1 import generation_pb2 as messages
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import model_pb2


def text_request(**fields: Any) -> service.GenerateRequest:
    """A valid request with these fields."""
    return service.GenerateRequest(**({"text": "x"} | fields))


BAD_SAMPLING = [
    ({"temperature": -1}, "sampling.temperature", "sampling.temperature must be >= 0, got -1"),
    ({"temperature": 11}, "sampling.temperature", "sampling.temperature must be <= 10, got 11"),
    ({"temperature": math.nan}, "sampling.temperature", "must be a number"),
    ({"top_p": 0}, "sampling.top_p", "sampling.top_p must be > 0, got 0"),
    ({"top_p": 1.5}, "sampling.top_p", "sampling.top_p must be <= 1, got 1.5"),
    ({"min_p": -0.5}, "sampling.min_p", "must be >= 0"),
    ({"repeat_penalty": 0}, "sampling.repeat_penalty", "must be > 0"),
    ({"frequency_penalty": 3}, "sampling.frequency_penalty", "must be <= 2"),
    ({"presence_penalty": -3}, "sampling.presence_penalty", "must be >= -2"),
    ({"penalty_last_n": -2}, "sampling.penalty_last_n", "must be >= -1"),
    ({"penalty_last_n": 2**31 - 1}, "sampling.penalty_last_n", "must be <= 16777216"),
    ({"logit_bias": {5: 101}}, "sampling.logit_bias[5]", "must be <= 100"),
    ({"stop": ["a", ""]}, "sampling.stop[1]", "must not be empty"),
    ({"stop": ["a"] * 17}, "sampling.stop", "must be <= 16"),
    ({"logprobs": 21}, "sampling.logprobs", "must be <= 20"),
]


@pytest.mark.parametrize("fields,path,text", BAD_SAMPLING)
def test_sampling_out_of_range_names_its_field(
    fields: dict[str, Any], path: str, text: str
) -> None:
    """Nothing is clamped: the message has the bound and the value, the metadata the path."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(text_request(sampling=messages.Sampling(**fields)))
    assert caught.value.metadata["field"] == path
    assert text in caught.value.message


def test_only_what_was_set_is_passed_on() -> None:
    """0 is a value, absence is none."""
    asked = generate_request(text_request(sampling=messages.Sampling(temperature=0, top_k=5)))
    nothing: dict[str, Any] = {"logit_bias": {}, "stop": ()}
    assert asked.sampling == nothing | {"temperature": 0, "top_k": 5}
    assert generate_request(text_request()).sampling == nothing


def test_min_p_of_one_keeps_only_the_likeliest() -> None:
    """The API allows 1, the worker wants less; no float lies between."""
    asked = generate_request(text_request(sampling=messages.Sampling(min_p=1)))
    assert asked.sampling["min_p"] == math.nextafter(1, 0)


USER = messages.Message.ROLE_USER
MALFORMED: list[tuple[service.GenerateRequest, str]] = [
    (service.GenerateRequest(), "input"),
    (service.GenerateRequest(text=""), "text"),
    (service.GenerateRequest(chat=messages.Chat()), "chat.messages"),
    (service.GenerateRequest(tokens=messages.TokenIds()), "tokens.ids"),
    (text_request(candidates=65), "candidates"),
    (text_request(best_of=65), "best_of"),
    (text_request(model=""), "model"),
    (
        service.GenerateRequest(chat=messages.Chat(messages=[messages.Message(role=USER)])),
        "chat.messages[0].parts",
    ),
    (
        service.GenerateRequest(
            chat=messages.Chat(messages=[messages.Message(parts=[messages.Part(text="x")])])
        ),
        "chat.messages[0].role",
    ),
    (
        service.GenerateRequest(
            chat=messages.Chat(
                messages=[
                    messages.Message(role=USER, parts=[messages.Part(text="x")]),
                    messages.Message(
                        role=messages.Message.ROLE_SYSTEM, parts=[messages.Part(text="x")]
                    ),
                ]
            )
        ),
        "chat.messages[1].role",
    ),
]


@pytest.mark.parametrize("request_,path", MALFORMED)
def test_a_malformed_request_names_its_field(request_: service.GenerateRequest, path: str) -> None:
    """An empty prompt, a nameless role and the like are the caller's to mend."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(request_)
    assert caught.value.metadata["field"] == path
    assert caught.value.reason == "INVALID_REQUEST"


RESERVED: list[tuple[service.GenerateRequest, str]] = [
    (text_request(json_schema="{}"), "json_schema"),
    (text_request(regex="a+"), "regex"),
    (text_request(grammar="root ::= x"), "grammar"),
    (text_request(tools=[messages.Tool(name="f")]), "tools"),
    (
        service.GenerateRequest(
            chat=messages.Chat(
                messages=[
                    messages.Message(role=USER, parts=[messages.Part(media=messages.Media())])
                ]
            )
        ),
        "chat.messages[0].parts[0].media",
    ),
    (
        service.GenerateRequest(
            chat=messages.Chat(messages=[messages.Message(role=messages.Message.ROLE_TOOL)])
        ),
        "chat.messages[0].role",
    ),
]


@pytest.mark.parametrize("request_,path", RESERVED)
def test_reserved_inputs_are_unsupported(request_: service.GenerateRequest, path: str) -> None:
    """Media, tools and constraints have a place in the API and no engine yet."""
    with pytest.raises(UnsupportedInputError) as caught:
        generate_request(request_)
    assert caught.value.metadata["field"] == path


def test_wishes_are_read() -> None:
    """Model, tier and mode arrive in the daemon's terms."""
    assert generate_request(text_request(model="models/m")).model == "m"
    assert generate_request(text_request(tier=model_pb2.TIER_STRONG)).tier is Tier.STRONG
    assert generate_request(text_request(mode=messages.MODE_EXACT)).mode is Mode.EXACT
    plain = generate_request(text_request())
    assert (plain.model, plain.tier, plain.mode) == (None, None, Mode.BALANCED)


def test_an_answer_may_be_asked_for_without_any_token() -> None:
    """max_tokens 0 reads the prompt into the cache; it is not the same as unset."""
    asked = generate_request(text_request(sampling=messages.Sampling(max_tokens=0)))
    assert asked.sampling["max_tokens"] == 0
    assert "max_tokens" not in generate_request(text_request()).sampling


def test_counting_and_scoring_pass_on_what_is_to_be_reported() -> None:
    """Ids of a prompt and alternatives of scored tokens are the request's choice."""
    counting = service.CountTokensRequest(text="x", include_token_ids=True)
    assert count_request(counting, work_id="w").include_tokens
    continuations = [service.Continuation(text="y")]
    scoring = service.ScoreRequest(text="x", continuations=continuations, alternatives=3)
    assert score_request(scoring, work_id="w").alternatives == 3
    with pytest.raises(InvalidRequestError) as caught:
        score_request(
            service.ScoreRequest(text="x", continuations=continuations, alternatives=21),
            work_id="w",
        )
    assert caught.value.metadata["field"] == "alternatives"


def test_scoring_needs_continuations() -> None:
    """There is at least one, and each holds something."""
    with pytest.raises(InvalidRequestError):
        score_request(service.ScoreRequest(text="x"), work_id="w")
    empty = service.ScoreRequest(text="", continuations=[service.Continuation()])
    with pytest.raises(InvalidRequestError) as caught:
        score_request(empty, work_id="w")
    assert caught.value.metadata["field"] == "continuations[0]"


def test_embedding_needs_texts() -> None:
    """There is at least one, and none is empty; vectors are scaled unless told otherwise."""
    with pytest.raises(InvalidRequestError):
        embed_request(service.EmbedRequest(), work_id="w")
    with pytest.raises(InvalidRequestError) as caught:
        embed_request(service.EmbedRequest(texts=["a", ""]), work_id="w")
    assert caught.value.metadata["field"] == "texts[1]"
    assert embed_request(service.EmbedRequest(texts=["a"]), work_id="w").normalize
    plain = service.EmbedRequest(texts=["a"], normalize=False)
    assert not embed_request(plain, work_id="w").normalize


def itself(item: int) -> tuple[int]:
    """The key of a number in a list of numbers."""
    return (item,)


@given(items=st.sets(st.integers(), max_size=50), size=st.integers(min_value=1, max_value=60))
def test_pages_make_up_the_list(items: set[int], size: int) -> None:
    """Following the tokens gives every item once, in order."""
    seen: list[int] = []
    token = ""
    while True:
        shown, token = page(sorted(items), key=itself, page_size=size, page_token=token)
        assert len(shown) <= size
        seen += shown
        if not token:
            break
    assert seen == sorted(items)


def test_what_comes_or_goes_between_pages_moves_nothing_else() -> None:
    """Neither a removed item nor a new one makes another be left out or shown twice."""
    _, token = page([1, 2, 3, 4], key=itself, page_size=2, page_token="")
    assert page([3, 4], key=itself, page_size=2, page_token=token) == ([3, 4], "")
    assert page([0, 1, 2, 3, 4], key=itself, page_size=9, page_token=token) == ([3, 4], "")


MADE_UP = ["-1", "x", "1" * 5000, "é", "W10=="]


@pytest.mark.parametrize(
    "token",
    [*MADE_UP, *(base64.b64encode(text).decode() for text in (b"7", b'["a"]', b"[" * 9999))],
)
def test_a_made_up_page_token_is_refused(token: str) -> None:
    """Only tokens that this daemon gave are taken, however they are made."""
    with pytest.raises(InvalidRequestError) as caught:
        page([1], key=itself, page_size=0, page_token=token)
    assert caught.value.metadata["field"] == "page_token"


def test_numbers_of_a_refusal_are_in_its_metadata() -> None:
    """The value and the bound, as the message has them; whole numbers lose no digit."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(text_request(sampling=messages.Sampling(temperature=11)))
    assert caught.value.metadata == {"field": "sampling.temperature", "value": "11", "most": "10"}
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(text_request(candidates=4_000_000_001))
    assert caught.value.metadata["value"] == "4000000001"
    assert "4000000001" in caught.value.message
    with pytest.raises(InvalidRequestError) as caught:
        client_name(text_request(client="x" * 129))
    assert caught.value.metadata["characters"] == "129"
    assert caught.value.metadata["limit_characters"] == "128"


UNKNOWN: list[tuple[service.GenerateRequest, str]] = [
    (text_request(mode=99), "mode"),
    (text_request(tier=99), "tier"),
    (text_request(priority=99), "priority"),
    (
        service.GenerateRequest(
            chat=messages.Chat(
                messages=[messages.Message(role=99, parts=[messages.Part(text="x")])]  # type: ignore[arg-type] # on purpose
            )
        ),
        "chat.messages[0].role",
    ),
]


@pytest.mark.parametrize("request_,path", UNKNOWN)
def test_an_unknown_enumerator_is_refused(request_: service.GenerateRequest, path: str) -> None:
    """What a newer client means by it cannot be guessed."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(request_)
    assert caught.value.metadata["field"] == path


def test_unknown_enumerators_of_other_requests_are_refused() -> None:
    """Scoring and embedding check theirs too."""
    continuations = [service.Continuation(text="y")]
    scoring = service.ScoreRequest(text="x", continuations=continuations)
    scoring.priority = 99  # type: ignore[assignment] # on purpose
    with pytest.raises(InvalidRequestError):
        score_request(scoring, work_id="w")
    for field in ("pooling", "priority"):
        embedding = service.EmbedRequest(texts=["a"])
        setattr(embedding, field, 99)
        with pytest.raises(InvalidRequestError) as caught:
            embed_request(embedding, work_id="w")
        assert caught.value.metadata == {"field": field, "value": "99"}


@pytest.mark.parametrize("name", ["x" * 4097, "models/" + "é" * 2049, "/a\0b.gguf", "a\0"])
def test_a_name_that_no_model_can_have_is_refused(name: str) -> None:
    """A megabyte of name is not compared with every id, and NUL ends no path."""
    for call in (required_model_id, optional_model):
        with pytest.raises(InvalidRequestError) as caught:
            call(name)
        assert caught.value.metadata["field"] == "model"


def test_the_longest_path_is_a_name() -> None:
    """4096 bytes, the prefix apart."""
    path = "/" + "x" * 4095
    assert required_model_id(f"models/{path}") == path


NOT_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize(
    "field",
    ["temperature", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty"],
)
def test_what_is_no_finite_number_is_refused(field: str, value: float) -> None:
    """NaN and both infinities, in every field that takes a fraction."""
    fields: dict[str, Any] = {field: value}
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(text_request(sampling=messages.Sampling(**fields)))
    assert caught.value.metadata["field"] == f"sampling.{field}"
    assert caught.value.metadata["value"] == f"{value:g}"


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_bias_that_is_no_finite_number_is_refused(value: float) -> None:
    """The same for the map's values."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(text_request(sampling=messages.Sampling(logit_bias={3: value})))
    assert caught.value.metadata["field"] == "sampling.logit_bias[3]"


OPTIONAL = {
    "temperature": 0.0,
    "top_k": 0,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "penalty_last_n": 0,
    "seed": 0,
    "max_tokens": 0,
    "ignore_eos": False,
    "logprobs": 0,
}


@pytest.mark.parametrize("field,zero", OPTIONAL.items())
def test_zero_is_a_value_in_every_optional_field(field: str, zero: float) -> None:
    """Set to 0 it is passed on, and only then."""
    fields: dict[str, Any] = {field: zero}
    asked = generate_request(text_request(sampling=messages.Sampling(**fields)))
    assert asked.sampling == {"logit_bias": {}, "stop": (), field: zero}
