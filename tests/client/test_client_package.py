from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import gemd.client
from gemd.client import AsyncClient, AsyncGeneration, AsyncStream, Client, Generation, Stream
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


ASYNC_NAMES = {
    "AsyncGeneration": "Generation",
    "AsyncStream[": "Stream[",
    "AsyncIterator[": "Iterator[",
}


def surface(kind: type) -> dict[str, tuple[str, str, str | None]]:
    """Parameters, result and documentation of every public method and property."""
    found = {}
    for name, member in inspect.getmembers(kind):
        if name.startswith("_") or not (callable(member) or isinstance(member, property)):
            continue
        function: Any = member.fget if isinstance(member, property) else member
        signature = inspect.signature(function)
        result = str(signature.return_annotation)
        for theirs, ours in ASYNC_NAMES.items():
            result = result.replace(theirs, ours)
        found[name] = (str(list(signature.parameters.values())), result, inspect.getdoc(function))
    return found


@pytest.mark.parametrize(
    "sync,asynchronous", [(Client, AsyncClient), (Generation, AsyncGeneration)]
)
def test_both_clients_do_the_same(sync: type, asynchronous: type) -> None:
    """The same methods with the same parameters, results and promises."""
    ours, theirs = surface(sync), surface(asynchronous)
    differing = {"close"}
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - differing:
        assert ours[name] == theirs[name], name
    assert str(inspect.signature(sync)) == str(inspect.signature(asynchronous))


def test_both_streams_do_the_same() -> None:
    """Closing is all that a stream has beside its iteration."""
    assert surface(Stream).keys() == surface(AsyncStream).keys() == {"close"}
