"""``python -m gemd.worker.quantize``: weights written anew with fewer bits.

A short-lived process of the lowest priority. It takes one `Order` from the standard input and
reports until it is done; when the input ends, so does the process. Killed at any moment, it goes on
with the same order where it was.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.errors import GemdError, InvalidRequestError
from gemd.wire.base import ErrorBody
from gemd.wire.quantize import TENSOR_LIST, TENSORS, Order, Report, Told
from gemd.worker.chore import Chore
from gemd.worker.memory import importing

if TYPE_CHECKING:
    from gemd.wire.quantize import Made, Progress
    from gemd.worker.quantize.source import Step, TensorSource

NVFP4: Final = "NVFP4"


def main() -> None:
    """Carry out one order."""
    chore = Chore("gemd:quantize")
    phase = ""

    def step(progress: Progress) -> None:
        nonlocal phase
        chore.progress(lambda: Report(progress=progress), always=progress.phase != phase)
        phase = progress.phase

    try:
        order = Order.model_validate_json(chore.order)
        made = carried_out(order, step)
        _list(made, Path(order.target) / TENSORS)
        report = Report(made=Told.of(made))
    except GemdError as error:
        report = Report(error=ErrorBody.of(error))
    chore.say(report)


def carried_out(order: Order, step: Step) -> Made:
    """What the order asks for.

    Args:
        order: Its target is made if it does not exist.
        step: Told how far it is.

    Raises:
        InvalidRequestError: The source cannot become that.
        GemdError: As `make_gguf`, `make_nvfp4` and the sources.

    """
    Path(order.target).mkdir(mode=0o700, parents=True, exist_ok=True)
    if order.quantization == NVFP4:
        # Torch: the other ways do without, and most machines have none.
        with importing():
            from gemd.worker.quantize.nvfp4 import make_nvfp4  # noqa: PLC0415 - as said

        return make_nvfp4(order, step)
    from gemd.worker.quantize.gguf import finished, make_gguf  # noqa: PLC0415 - as above

    # An order that was killed after its last step: its source may be gone.
    if made := finished(order):
        return made
    source = _source(order)
    try:
        return make_gguf(order, source, step)
    finally:
        source.close()


def _list(made: Made, file: Path) -> None:
    """Writes which tensors there are, whole or not at all."""
    beside = file.with_suffix(".part")
    with beside.open("wb") as written:
        written.write(TENSOR_LIST.dump_json(made.tensors))
        written.flush()
        os.fsync(written.fileno())
    beside.replace(file)


def _source(order: Order) -> TensorSource:
    path = Path(order.source)
    if path.is_dir():
        from gemd.worker.quantize.gemma4 import (  # noqa: PLC0415 - as above
            Gemma4Source,
            is_gemma4,
        )

        if not is_gemma4(path):
            raise InvalidRequestError(
                f"{path} cannot become a GGUF file",
                why="of directories gemd converts Gemma 4 checkpoints only",
                advice=(f"ls -lL {shlex.quote(str(path))}",),
                metadata={"field": "model", "path": path},
            )
        return Gemma4Source(path, discard=order.discard_source, kept=Path(order.target))
    from gemd.worker.quantize.gguf import GgufSource  # noqa: PLC0415 - as above

    return GgufSource(path, discard=order.discard_source, kept=Path(order.target))


if __name__ == "__main__":
    main()
