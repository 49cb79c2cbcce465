"""What `gemctl batch` keeps: results in order, a journal of those ahead, whatever ends it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.batch.jobs import Job, read_jobs
from gemd.cli.batch.results import Kept, Printed, kept_in
from gemd.cli.failures import CommandError, Exit


def jobs_of(*told: dict[str, Any]) -> list[Job]:
    """The jobs of a file with these lines."""
    return read_jobs("\n".join(map(json.dumps, told)), name="jobs", defaults={})


def result(job: Job, *, failed: bool = False) -> dict[str, Any]:
    """The line of a job."""
    told = {"error": {"reason": "X"}} if failed else {"text": f"é\u2028 {job.id}"}
    return {"id": job.id, "job": job.key, **told}


def three() -> list[Job]:
    """Jobs."""
    return jobs_of(*({"id": name, "prompt": name} for name in "abc"))


def lines(path: Path) -> list[dict[str, Any]]:
    """The results in a file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_results_that_are_ahead_wait_in_the_journal(tmp_path: Path) -> None:
    """Both are on the disk when `add` returns; at the end there is one file."""
    jobs, out = three(), tmp_path / "out"
    journal = tmp_path / "out.journal"
    with kept_in(jobs, out, retry_failed=False) as kept:
        assert kept.open() == [0, 1, 2]
        kept.add(2, result(jobs[2]))
        assert (lines(out), lines(journal)) == ([], [result(jobs[2])])
        kept.add(0, result(jobs[0]))
        assert lines(out) == [result(jobs[0])]
        kept.add(1, result(jobs[1]))
        assert lines(out) == [result(job) for job in jobs]
        assert journal.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_later_start_takes_up_both(tmp_path: Path) -> None:
    """What is done is not open; what was only begun is cut off; more jobs may have come."""
    jobs, out = three(), tmp_path / "out"
    with kept_in(jobs, out, retry_failed=False) as kept:
        kept.add(0, result(jobs[0]))
        kept.add(2, result(jobs[2], failed=True))
    with out.open("ab") as file:
        file.write(b'{"id": "b", "jo')
    more = [*jobs, *jobs_of({"id": "d", "prompt": "d"})]
    with kept_in(more, out, retry_failed=False) as kept:
        assert (kept.open(), kept.failed) == ([1, 3], 1)
        kept.add(3, result(more[3]))
        kept.add(1, result(more[1]))
    expected = [result(job, failed=job.id == "c") for job in more]
    assert lines(out) == expected
    with kept_in(more, out, retry_failed=False) as kept:
        assert (kept.open(), kept.failed) == ([], 1)


def test_failed_jobs_run_again_in_their_places(tmp_path: Path) -> None:
    """The others keep their results, also if that run is killed and started anew."""
    jobs, out = three(), tmp_path / "out"
    with kept_in(jobs, out, retry_failed=False) as kept:
        for index, job in enumerate(jobs):
            kept.add(index, result(job, failed=index == 1))
    with kept_in(jobs, out, retry_failed=True) as kept:
        assert (kept.open(), kept.failed) == ([1], 0)
        assert lines(out) == [result(jobs[0])]
    with kept_in(jobs, out, retry_failed=False) as kept:
        assert (kept.open(), kept.failed) == ([1], 0)
        kept.add(1, result(jobs[1]))
    assert lines(out) == [result(job) for job in jobs]


@pytest.mark.parametrize("change", ["prompt", "order", "fewer"])
def test_results_of_other_jobs_are_refused(tmp_path: Path, change: str) -> None:
    """And left as they are: an answer that somebody has read does not change silently."""
    jobs, out = three(), tmp_path / "out"
    with kept_in(jobs, out, retry_failed=False) as kept:
        for index, job in enumerate(jobs):
            kept.add(index, result(job))
    before = out.read_bytes()
    other = {
        "prompt": jobs_of(*({"id": name, "prompt": "new"} for name in "abc")),
        "order": jobs[::-1],
        "fewer": jobs[:2],
    }[change]
    with (
        pytest.raises(CommandError, match="other jobs") as caught,
        kept_in(other, out, retry_failed=True),
    ):
        pass
    assert caught.value.code == Exit.PRECONDITION
    assert out.read_bytes() == before


def test_a_job_that_changed_ahead_of_its_turn_runs_again(tmp_path: Path) -> None:
    """Nobody has seen its result: it waits in the journal only."""
    jobs, out = three(), tmp_path / "out"
    with kept_in(jobs, out, retry_failed=False) as kept:
        kept.add(2, result(jobs[2]))
    changed = [*jobs[:2], *jobs_of({"id": "c", "prompt": "new"})]
    with kept_in(changed, out, retry_failed=False) as kept:
        assert kept.open() == [0, 1, 2]


@pytest.mark.parametrize(
    "content", [b"a letter\n", b"a letter", b'{"id": 1}\n', b"[]\n", b"\xff\n", b'{"id": 1, "x"\n']
)
def test_a_file_of_somebody_else_is_never_touched(tmp_path: Path, content: bytes) -> None:
    """Neither appended to nor cut, and nothing is made beside it."""
    out = tmp_path / "out"
    out.write_bytes(content)
    with (
        pytest.raises(CommandError, match="no file of results"),
        kept_in(three(), out, retry_failed=False),
    ):
        pass
    assert out.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_batches_do_not_write_to_one_file(tmp_path: Path) -> None:
    """The second one is told; as is one whose file cannot be made."""
    out = tmp_path / "out"
    with (
        kept_in(three(), out, retry_failed=False),
        pytest.raises(CommandError, match="another gemctl batch"),
        kept_in(three(), out, retry_failed=False),
    ):
        pass
    with (
        pytest.raises(CommandError, match="cannot be used") as caught,
        kept_in(three(), tmp_path / "no" / "out", retry_failed=False),
    ):
        pass
    assert caught.value.why == "No such file or directory"


def test_a_device_keeps_no_results(tmp_path: Path) -> None:
    """Nothing could go on from there; nor is a journal made beside it."""
    link = tmp_path / "out"
    link.symlink_to("/dev/null")
    with (
        pytest.raises(CommandError, match="no file that results can be kept in"),
        kept_in(three(), link, retry_failed=False),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_printed_results_come_in_order() -> None:
    """As soon as those before them have come."""
    jobs = three()
    written: list[dict[str, Any]] = []
    printed = Printed(3, written.append)
    assert printed.open() == [0, 1, 2]
    printed.add(1, result(jobs[1], failed=True))
    assert (written, printed.failed) == ([], 1)
    printed.add(0, result(jobs[0]))
    assert [one["id"] for one in written] == ["a", "b"]


@given(
    st.permutations(range(6)),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40), st.integers(0, 40)), max_size=4),
)
def test_nothing_is_lost_or_doubled_by_any_end(
    order: list[int], ends: list[tuple[int, int, int]]
) -> None:
    """Killed anywhere, with the last bytes of either file missing: every line once, in order.

    What a file has lost at its end is answered again; nothing else is.
    """
    jobs = jobs_of(*({"id": number, "prompt": "p"} for number in range(6)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        journal = Path(folder) / "out.journal"
        for count, lost_out, lost_journal in ends:
            with kept_in(jobs, out, retry_failed=False) as kept:
                run(kept, jobs, order, count)
            for path, lost in ((out, lost_out), (journal, lost_journal)):
                if path.exists():
                    content = path.read_bytes()
                    path.write_bytes(content[: max(len(content) - lost, 0)])
        with kept_in(jobs, out, retry_failed=False) as kept:
            run(kept, jobs, order, len(jobs))
        assert lines(out) == [result(job) for job in jobs]
        assert not journal.exists()


def run(kept: Kept, jobs: list[Job], order: list[int], count: int) -> None:
    """Answer so many of the open jobs, in that order."""
    open_ = set(kept.open())
    for index in [index for index in order if index in open_][:count]:
        kept.add(index, result(jobs[index]))
