from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gemd import errors
from gemd.errors import BY_REASON, GemdError
from gemd.rpc.status import DOMAIN, to_grpc, to_status

TABLE = {
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "UNSUPPORTED_INPUT": "INVALID_ARGUMENT",
    "CONTEXT_TOO_LONG": "INVALID_ARGUMENT",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "NOT_FOUND": "NOT_FOUND",
    "MODEL_TOO_LARGE": "FAILED_PRECONDITION",
    "VRAM_BUDGET_EXCEEDED": "RESOURCE_EXHAUSTED",
    "QUEUE_FULL": "RESOURCE_EXHAUSTED",
    "DISK_FULL": "RESOURCE_EXHAUSTED",
    "ENGINE_CRASHED": "UNAVAILABLE",
    "ENGINE_START_FAILED": "FAILED_PRECONDITION",
    "ENGINE_MISSING": "FAILED_PRECONDITION",
    "BAD_MODEL_FILE": "FAILED_PRECONDITION",
    "MODEL_QUARANTINED": "FAILED_PRECONDITION",
    "MODEL_BUSY": "FAILED_PRECONDITION",
    "MODEL_FORBIDDEN": "FAILED_PRECONDITION",
    "CPU_CONSENT_NEEDED": "FAILED_PRECONDITION",
    "OPERATION_CONFLICT": "ABORTED",
    "CANCELLED": "CANCELLED",
    "DEADLINE_EXPIRED": "DEADLINE_EXCEEDED",
    "SHUTTING_DOWN": "UNAVAILABLE",
    "HUB_UNREACHABLE": "UNAVAILABLE",
    "AUTH_REQUIRED": "UNAUTHENTICATED",
    "REPO_GATED": "PERMISSION_DENIED",
    "CONTENT_MISMATCH": "DATA_LOSS",
    "EVENTS_LOST": "OUT_OF_RANGE",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "BAD_CONFIG": "FAILED_PRECONDITION",
    "UNEXPECTED": "INTERNAL",
}


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo among the details."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def test_the_table_is_complete() -> None:
    """Every reason of the tree of errors has its row."""
    assert set(TABLE) == set(BY_REASON)


@pytest.mark.parametrize("reason", sorted(TABLE))
def test_every_error_has_its_code_and_info(reason: str) -> None:
    """Reason, domain, metadata, cause and advice arrive, under the code of the table."""
    error = BY_REASON[reason](
        "it failed with 7", why="because", advice=("do this", "or that"), metadata={"count": 7}
    )
    status = to_status(error)
    assert status.code == grpc.StatusCode[TABLE[reason]].value[0]
    assert to_grpc(error).code is grpc.StatusCode[TABLE[reason]]
    assert status.message == "it failed with 7"
    info = info_of(status)
    assert (info.reason, info.domain) == (reason, DOMAIN)
    assert dict(info.metadata) == {"count": "7", "why": "because", "try": "do this\nor that"}


def test_a_crash_after_the_first_text_is_aborted() -> None:
    """A retry would not be transparent any more."""
    crash = errors.EngineCrashedError("it crashed", mid_stream=True)
    assert to_grpc(crash).code is grpc.StatusCode.ABORTED


def test_a_retry_delay_travels() -> None:
    """Seconds become a RetryInfo."""
    status = to_status(errors.QueueFullError("full", retry_after=1.5))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_a_field_becomes_a_violation() -> None:
    """The offending field is named by its path in the proto."""
    error = errors.InvalidRequestError("x must be >= 0", metadata={"field": "sampling.x"})
    bad = error_details_pb2.BadRequest()
    assert to_status(error).details[1].Unpack(bad)
    assert bad.field_violations[0].field == "sampling.x"
    assert bad.field_violations[0].description == "x must be >= 0"


texts = st.text(max_size=3000)


@given(
    message=texts,
    why=texts,
    advice=st.lists(texts, max_size=5),
    metadata=st.dictionaries(st.text(min_size=1, max_size=20), texts, max_size=10),
)
def test_details_always_fit_into_trailers(
    message: str, why: str, advice: list[str], metadata: dict[str, str]
) -> None:
    """However long the texts, the status stays below 4 KiB and keeps its reason."""
    error = errors.BadModelFileError(message, why=why, advice=advice, metadata=metadata)
    status = to_status(error)
    assert status.ByteSize() < 4096
    assert info_of(status).reason == "BAD_MODEL_FILE"


def test_of_a_long_log_the_end_is_kept() -> None:
    """The last words of a worker tell more than its first ones."""
    error = GemdError("it failed", metadata={"stderr": "a" * 9000 + "the end"})
    assert info_of(to_status(error)).metadata["stderr"].endswith("the end")
