"""Embed: which pooling reaches the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.rpc.convert.requests import embed_request
from gemd.v1 import generation_service_pb2 as service
from tests.support.app import MODEL, Running, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd import wire

Pooling = service.EmbedRequest.Pooling


@pytest.mark.parametrize(
    "asked,expected",
    [
        (service.EmbedRequest.POOLING_UNSPECIFIED, None),
        (service.EmbedRequest.POOLING_MEAN, "mean"),
        (service.EmbedRequest.POOLING_LAST, "last"),
    ],
)
def test_a_pooling_that_is_not_named_is_left_to_the_worker(
    asked: Pooling.ValueType, expected: wire.Pooling | None
) -> None:
    """Only there is the file known."""
    request = service.EmbedRequest(texts=["a"], pooling=asked)
    assert embed_request(request, work_id="w").pooling == expected


async def values(running: Running, pooling: Pooling.ValueType) -> Sequence[float]:
    """The vector of a text of two words."""
    request = service.EmbedRequest(texts=["a b"], model=MODEL, pooling=pooling)
    return (await running.generation.Embed(request)).embeddings[0].values


@pytest.mark.parametrize("own", ["mean", "last"])
async def test_without_a_pooling_it_is_the_models(own: str) -> None:
    """MEAN and LAST are what they are whatever the model was made for."""
    async with serving(load={"pooling": own}) as running:
        unnamed = await values(running, service.EmbedRequest.POOLING_UNSPECIFIED)
        named = {
            "mean": await values(running, service.EmbedRequest.POOLING_MEAN),
            "last": await values(running, service.EmbedRequest.POOLING_LAST),
        }
    assert named["mean"] != named["last"]
    assert unnamed == named[own]
