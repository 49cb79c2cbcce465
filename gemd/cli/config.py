"""`gemctl config`: the settings in force and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def show(session: Session, *, origin: bool, as_json: bool) -> None:
    """Print the settings, and the files that follow from them.

    A flag is stronger than GEMD_<KEY>, that than the file, and that than the default.
    """
    settings = [(one.description.key, one.value, one.origin) for one in session.resolved.describe()]
    files = list(_files(session))
    if as_json:
        session.output.document(
            {
                "settings": {
                    key: {"value": value, "origin": come} for key, value, come in settings
                },
                "files": {key: {"value": value, "origin": come} for key, value, come in files},
            }
        )
        return
    for headline, rows in (("setting", settings), ("file", files)):
        headers = (headline, "value", "origin") if origin else (headline, "value")
        session.output.table(
            headers,
            [(key, value or "-", come)[: len(headers)] for key, value, come in rows],
        )
        if rows is settings:
            session.output.line()


def _files(session: Session) -> Iterator[tuple[str, str, str]]:
    paths = session.settled_paths
    found = "read" if paths.config_file.exists() else "does not exist"
    store_origin = session.resolved.origins["store_dir"]
    yield "config_file", str(paths.config_file), found
    yield "socket", str(paths.socket), paths.socket_origin
    yield "store_dir", str(paths.store_dir), store_origin
    yield "engines_dir", str(paths.engines_dir), "the user's directories"
    yield "state_dir", str(paths.state_dir), "the user's directories"
    yield "log_file", str(paths.log_file), "the user's directories"
