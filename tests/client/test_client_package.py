from __future__ import annotations

import subprocess
import sys

import pytest

import gemd.client
from tests.support.gemctl import REPOSITORY


@pytest.mark.parametrize("name", gemd.client.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What the package promises can be had from it, and is documented."""
    assert getattr(gemd.client, name).__doc__


def test_other_names_are_not() -> None:
    """A misspelt name is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="Cleint"):
        _ = gemd.client.Cleint


def test_the_client_does_without_the_daemons_packages() -> None:
    """A program that talks to gemd loads neither pydantic nor anything of the daemon."""
    program = (
        "import sys; from gemd.client import Client, GenerationOptions;"
        "Client('/nowhere/gemd.sock').chat('Hi');"
        "loaded = [name for name in sys.modules if name.startswith(('gemd.', 'pydantic'))];"
        "sys.exit(' '.join(n for n in loaded if not n.startswith(('gemd.client', 'gemd.v1'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr.strip() == ""
