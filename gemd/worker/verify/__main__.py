"""``python -m gemd.worker.verify``: are these files what they should be, and as good?

A short-lived process of the lowest priority, because a damaged file is untrusted and llama.cpp is
C++. It takes one `Examine` from the standard input and reports until it is done; when the input
ends, so does the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.errors import GemdError
from gemd.wire.base import ErrorBody
from gemd.wire.verify import Examine, Report
from gemd.worker.chore import Chore
from gemd.worker.verify.examination import examine

if TYPE_CHECKING:
    from gemd.wire.verify import Progress


def main() -> None:
    """Carry out one order."""
    chore = Chore("gemd:verify")
    check = ""

    def tell(progress: Progress) -> None:
        nonlocal check
        # Whoever hears of a crash has to know which check it was in.
        chore.progress(lambda: Report(progress=progress), always=progress.check != check)
        check = progress.check

    try:
        report = Report(examined=examine(Examine.model_validate_json(chore.order), tell))
    except GemdError as error:
        report = Report(error=ErrorBody.of(error))
    chore.say(report)


if __name__ == "__main__":
    main()
