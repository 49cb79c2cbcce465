"""`gemctl quantize`: a smaller variant, made on this machine."""

from __future__ import annotations

import shlex
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gemd.cli import offers
from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.follow import ASK_ABOVE_BYTES, follow_operation
from gemd.cli.session import Session, model_name, pass_session
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gemd.cli.output import Output
    from gemd.client import Client, Model

_OPTIONS = {
    "--to": "quantization",
    "--from": "source",
    "--variant": "variant",
    "--imatrix": "imatrix",
    "--dense": "dense",
    "--discard-source": "discard_source",
    "--accept-licence": "accept_licence",
    "--force": "force",
}
_LEAST_COLUMNS = 20
"""Narrower than that, nothing is wrapped: the terminal does it."""


@click.command()
@click.argument("model", metavar="MODEL|PATH", shell_complete=offers.models)
@click.option(
    "--to",
    "quantization",
    required=True,
    metavar="TYPE",
    shell_complete=offers.quantizations,
    help="Such as Q4_K_M, Q8_0 or NVFP4.",
)
@click.option(
    "--from",
    "source",
    metavar="VARIANT",
    shell_complete=offers.variants,
    help="Start from this one of MODEL.",
)
@click.option("--variant", metavar="ID", help="What to call the result.")
@click.option(
    "--imatrix",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="GGUF file with an importance matrix.",
)
@click.option("--dense", is_flag=True, help="NVFP4: the dense layers too, not only the experts.")
@click.option(
    "--discard-source",
    is_flag=True,
    help="Remove what had to be fetched for this, each file as soon as it is used up.",
)
@click.option("--accept-licence", is_flag=True, help="You have read the licence and agree.")
@click.option("--force", is_flag=True, help="Make it again though it is on disk.")
@click.option("--yes", "-y", is_flag=True, help="Fetch a large source without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def quantize(session: Session, /, model: str, **options: Any) -> None:
    """Make a smaller variant of MODEL, or of the weights at PATH, and verify it.

    PATH is a GGUF file with F32, F16 or BF16 weights, or the folder of a Gemma 4 or DiffusionGemma
    checkpoint; it stays as it is. Of a MODEL without such weights on disk they are fetched.
    Ctrl-C leaves the work running in the daemon.
    """
    output, name = session.output, model_name(model)
    with session.client(start=True) as client:
        if not options["yes"] and not name.startswith("/"):
            _check_consent(session, client, name, options)
        begin = partial(
            client.quantize,
            name,
            options["quantization"],
            source_variant=options["source"] or "",
            variant=options["variant"] or "",
            discard_source=options["discard_source"],
            accept_licence=options["accept_licence"],
            quantize_dense=options["dense"],
            importance_matrix=_absolute(options["imatrix"]),
        )
        last = follow_operation(
            client, begin(force=options["force"]), output, revive=session.revive, again=begin
        )
    if options["as_json"]:
        output.document(document(last.raw))
        return
    result = last.raw.quantize
    made = f"{last.model}:{result.variant}"
    show_checks(output, result.checks)
    verb = "is made and on disk" if last.current_bytes else "is on disk already"
    output.note(f"{made} {verb} ({human_bytes(result.size_bytes)}, from {result.origin})")
    output.hint(f"gemctl run --model {made} 'Why is the sky blue?'")


def show_checks(output: Output, checks: Iterable[Any]) -> None:
    """A table of what was looked at; nothing if nothing was."""
    rows = [
        (
            each.check,
            "passed" if each.passed else "FAILED",
            _figure(each, "value"),
            _figure(each, "limit"),
            each.detail,
        )
        for each in checks
    ]
    if not rows:
        return
    headers = ("check", "", "value", "limit", "found")
    first, below = _wrapped(headers, rows, output.data_columns() if output.can_draw() else 0)
    output.table(headers, first, right={"value", "limit"}, below=below)


def _wrapped(
    headers: Sequence[str], rows: Sequence[tuple[str, ...]], columns: int
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows with as much of the last cell as fits, and the rest as lines under each.

    Args:
        headers: Of the columns.
        rows: Their cells.
        columns: Of the terminal; 0 if it is none, and nothing is wrapped.

    """
    widths = (max(map(len, cells)) for cells in zip(headers, *rows, strict=True))
    indent = sum(width + 2 for width in list(widths)[:-1])
    if columns - indent < _LEAST_COLUMNS:
        return list(rows), [""] * len(rows)
    first, below = [], []
    for *cells, last in rows:
        # A name or a hash that is cut in two could not be copied.
        lines = textwrap.wrap(
            last, columns - indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
        first.append((*cells, lines[0]))
        below.append("\n".join(" " * indent + line for line in lines[1:]))
    return first, below


def _figure(check: Any, name: str) -> str:
    return f"{getattr(check, name):.4g}" if check.HasField(name) else ""


def _absolute(path: str | None) -> str:
    return str(Path(path).absolute()) if path else ""


def _check_consent(session: Session, client: Client, name: str, options: dict[str, Any]) -> None:
    """Ask before a large source is fetched.

    Raises:
        CommandError: Nobody said yes.

    """
    model = client.model(name.partition(":")[0])
    size = _to_fetch(session, model, options["source"] or name.partition(":")[2], options)
    if size <= ASK_ABOVE_BYTES:
        return
    what = f"{human_bytes(size)} of weights that {options['quantization']} is made from"
    question = f"{model.id} needs {what}, and they are not on this machine. Fetch them?"
    if session.output.can_ask() and session.output.confirm(question):
        return
    raise CommandError(
        f"fetching {what} needs a yes",
        Exit.PRECONDITION,
        advice=(shlex.join(("gemctl", "quantize", "--yes", name, *_as_typed(options))),),
    )


def _as_typed(options: dict[str, Any]) -> list[str]:
    """The options of a command line, but for those about how it is shown."""
    typed: list[str] = []
    for option, key in _OPTIONS.items():
        if value := options[key]:
            typed += [option] if value is True else [option, value]
    return typed


def _to_fetch(session: Session, model: Model, source: str, options: dict[str, Any]) -> int:
    """Bytes that have to be fetched first; 0 if none, or if the daemon will say that it cannot."""
    from gemd.catalog.quantizations import NVFP4, UNQUANTIZED

    sources = {each.id: each for each in model.variants if each.quantization.upper() in UNQUANTIZED}
    if any(each.on_disk for each in sources.values() if source in {"", each.id}):
        return 0
    checkpoint = _checkpoint_bytes(session, model.id)
    if source:
        known = sources.get(source)
        return known.size_bytes if known else checkpoint
    if checkpoint and options["quantization"].upper() != NVFP4:
        return checkpoint
    return max((each.size_bytes for each in sources.values()), default=0)


def _checkpoint_bytes(session: Session, model: str) -> int:
    """Size of a model's unquantized weights, which the daemon lists only once they are here."""
    from gemd.catalog import Catalog
    from gemd.errors import GemdError
    from gemd.paths import data_dir

    try:
        catalog = Catalog.load(
            data_dir("profiles") / "models", session.paths.config_file.parent / "models"
        )
        checkpoint = catalog.resolve(model).checkpoint
    except GemdError:
        # The daemon knows more, and will say what is wrong.
        return 0
    return checkpoint.size_bytes if checkpoint else 0
