"""Error details of who answers in gemd's place: damaged, of others, or with odd values."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gemd.client import GemdClientError
from gemd.client.endpoint import Endpoint
from gemd.client.status import Circumstances, client_error

KEY = "grpc-status-details-bin"
AROUND = Circumstances(Endpoint.parse("127.0.0.1:1"))


def damaged() -> bytes:
    """A status whose reason is cut in the middle, in a wrapping that is whole."""
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="gemd"))
    status.details[0].value = status.details[0].value[:-3]
    whole: bytes = status.SerializeToString()
    return whole


@pytest.mark.parametrize("value", [b"\xff\xff\xff", b"\x1a\x02\x0a\xff", damaged()])
def test_damaged_details_are_no_details(value: bytes) -> None:
    """The code and the text are told all the same."""
    error = client_error("INTERNAL", "what it said", [(KEY, value)], AROUND)
    assert type(error) is GemdClientError
    assert (error.code, str(error)) == ("INTERNAL", "what it said")


@given(st.binary(max_size=100))
def test_no_bytes_are_an_exception_of_another_kind(value: bytes) -> None:
    """Whatever comes becomes an error of this package."""
    assert isinstance(client_error("INTERNAL", "x", [(KEY, value)], AROUND), GemdClientError)
