from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.doctor.diagnosis import Finding, Result, conclude, failure, failure_of, warning
from gemd.doctor.words import counted, listed, quoted, span
from gemd.errors import ConfigError
from gemd.quantities import human_bytes as size

FINDINGS = st.lists(
    st.builds(
        Finding,
        st.sampled_from([Result.WARNING, Result.FAILED]),
        st.text("abc ", min_size=1),
        st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(tuple),
    )
)


@given(FINDINGS, st.text("xyz"))
def test_the_worst_finding_decides(findings: list[Finding], facts: str) -> None:
    """It comes first, everything that was found is said, and no fix twice."""
    found = conclude("cpu", findings, facts=facts)
    failed = [each for each in findings if each.result is Result.FAILED]
    if not findings:
        assert (found.result, found.detail, found.fixes) == (Result.OK, facts, ())
        return
    assert found.result is (Result.FAILED if failed else Result.WARNING)
    assert found.detail.startswith((failed or findings)[0].text)
    assert all(each.text in found.detail for each in findings)
    assert found.detail.endswith(facts)
    assert len(set(found.fixes)) == len(found.fixes)
    assert set(found.fixes) == {fix for each in findings for fix in each.fixes}


def test_a_domain_error_is_a_finding() -> None:
    """With its cause and its advice."""
    error = ConfigError("x is wrong", why="it is red", advice=("paint it",))
    assert failure_of(error) == failure("x is wrong: it is red", "paint it")
    assert warning("w").result is Result.WARNING


@pytest.mark.parametrize(
    "text,wanted",
    [
        (size(0), "0 B"),
        (size(1023), "1023 B"),
        (size(1536), "1.5 KiB"),
        (size(300 * 2**20), "300 MiB"),
        (size(5 * 2**50), "5120 TiB"),
        (span(59.9), "59 s"),
        (span(3599), "59 min"),
        (span(7200), "2 h"),
        (span(86400), "1 day"),
        (span(3 * 86400), "3 days"),
        (counted(1, "model"), "1 model"),
        (counted(0, "model"), "0 models"),
        (listed(["a", "b"]), "a, b"),
        (listed(list("abcdefg")), "a, b, c, d, e and 2 more"),
        (quoted("/a b"), "'/a b'"),
    ],
)
def test_words(text: str, wanted: str) -> None:
    """Sizes, times and counts are written as people do; paths as a shell takes them."""
    assert text == wanted
