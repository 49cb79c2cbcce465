"""Who runs beside whom: jobs of one model together, and among them those of like length."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gemd.cli.batch.jobs import Job


def groups(jobs: Sequence[Job], open_: Iterable[int]) -> list[list[int]]:
    """The open jobs by who answers them, each group in the order in which to run it.

    Groups run one after another, so that the models that jobs name are swapped no more often than
    there are groups; of jobs that name none the daemon chooses job by job. Groups come in the order
    of their first job. Within one, jobs with limits of the same power of two
    are neighbours: what is decoded in one batch then ends at about the same time.

    Args:
        jobs: All of the file.
        open_: Indices of those that are to run.

    """
    found: dict[tuple[str, str], list[int]] = {}
    for index in open_:
        content = jobs[index].content
        found.setdefault((content.get("model", ""), content.get("tier", "")), []).append(index)
    return [
        sorted(group, key=lambda index: (_length(jobs[index]), index)) for group in found.values()
    ]


def _length(job: Job) -> int:
    """The power of two that the limit of its tokens lies below; one without a limit goes last."""
    limit = job.content.get("max_tokens")
    return 64 if limit is None else int(limit).bit_length()
