from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import InvalidRequestError, UnsupportedInputError
from gemd.routing.request import Mode, Tier
from gemd.rpc.convert.fields import page
from gemd.rpc.convert.requests import (
    count_request,
    embed_request,
    generate_request,
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
    (text_request(thinking=True), "thinking"),
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


@given(items=st.lists(st.integers(), max_size=50), size=st.integers(min_value=1, max_value=60))
def test_pages_make_up_the_list(items: list[int], size: int) -> None:
    """Following the tokens gives every item once, in order."""
    seen: list[int] = []
    token = ""
    while True:
        shown, token = page(items, page_size=size, page_token=token)
        assert len(shown) <= size
        seen += shown
        if not token:
            break
    assert seen == items


def test_a_made_up_page_token_is_refused() -> None:
    """Only tokens that this daemon gave are taken."""
    with pytest.raises(InvalidRequestError) as caught:
        page([1], page_size=0, page_token="-1")
    assert caught.value.metadata["field"] == "page_token"
