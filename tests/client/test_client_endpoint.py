from __future__ import annotations

from pathlib import Path

import pytest

from gemd.client import Client, Endpoint, RetryPolicy, default_socket
from gemd.errors import ConfigError
from tests.support.fake_daemon import FakeDaemon


def test_a_socket_may_be_given_as_path_or_target() -> None:
    """A path and `unix:PATH` mean the same socket."""
    assert Endpoint.parse("/run/gemd.sock").target == "unix:/run/gemd.sock"
    assert Endpoint.parse("unix:/run/gemd.sock").target == "unix:/run/gemd.sock"
    assert Endpoint.parse(Path("/run/gemd.sock")).socket == Path("/run/gemd.sock")


@pytest.mark.parametrize("name", ["a b", "größe", "what?", "no#1", "100%41"])
def test_a_socket_may_lie_anywhere(name: str) -> None:
    """A target is a URI, in which none of these may stand for something else."""
    endpoint = Endpoint.parse(f"/run/{name}/gemd.sock")
    assert not set(endpoint.target) & set(" ?#ö")
    assert endpoint.socket == Path(f"/run/{name}/gemd.sock")
    assert str(endpoint) == f"/run/{name}/gemd.sock"


def test_a_daemon_in_an_odd_directory_is_reached(socket: Path) -> None:
    """The target is read as it was meant."""
    odd = socket.parent / "what? no#1 größe" / "gemd.sock"
    odd.parent.mkdir()
    with FakeDaemon(odd), Client(odd, retry=RetryPolicy(attempts=1)) as client:
        assert client.info().version == "0.1.0"


def test_a_port_of_this_machine_takes_a_token() -> None:
    """The token travels as bearer token, and without one nothing does."""
    endpoint = Endpoint.parse("127.0.0.1:7000", "secret")
    assert endpoint.target == "ipv4:127.0.0.1:7000"
    assert endpoint.metadata == (("authorization", "Bearer secret"),)
    assert Endpoint.parse("localhost:7000").metadata == ()
    assert Endpoint.parse("[::1]:7000").target == "ipv6:[::1]:7000"
    assert endpoint.socket is None


@pytest.mark.parametrize("address", ["10.0.0.7:7000", "example.org:443", "0.0.0.0:7000"])
def test_nothing_is_sent_beyond_this_machine_in_the_clear(address: str) -> None:
    """An address that is not loopback is refused before any byte is sent, but for TLS."""
    with pytest.raises(ValueError, match="not this machine"):
        Endpoint.parse(address, "secret")


@pytest.mark.parametrize("address", ["gemd", "localhost", "localhost:", "127.0.0.1:http", ":7000"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """Neither a relative path nor a host without a port is guessed at."""
    with pytest.raises(ValueError, match="neither"):
        Endpoint.parse(address)


def test_a_token_may_be_read_from_its_file() -> None:
    """Which ends in a newline; what no header may hold is refused before gRPC sees it."""
    assert Endpoint.parse("127.0.0.1:8765", "secret\n").metadata == (
        ("authorization", "Bearer secret"),
    )
    for wrong in ("two\nlines", "ü", "a\x00b"):
        with pytest.raises(ValueError, match="plain ASCII"):
            Endpoint.parse("127.0.0.1:8765", wrong)


@pytest.mark.parametrize("port", ["0", "65536", "99999999"])
def test_a_port_has_sixteen_bits(port: str) -> None:
    """GRPC would only say that it does not know it."""
    with pytest.raises(ValueError, match="from 1 to 65535"):
        Endpoint.parse(f"127.0.0.1:{port}", "secret")


def test_the_default_socket_follows_the_daemons_settings(tmp_path: Path) -> None:
    """GEMD_SOCKET decides, then the file, then the runtime directory."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}
    assert default_socket(environ) == Path("/run/user/7/gemd/gemd.sock")
    file = tmp_path / ".config" / "gemd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('socket = "/somewhere/g.sock"\n')
    assert default_socket(environ) == Path("/somewhere/g.sock")
    assert default_socket({**environ, "GEMD_SOCKET": "/else/g.sock"}) == Path("/else/g.sock")


def test_a_wrong_setting_is_no_socket(tmp_path: Path) -> None:
    """A relative socket path is an error that names the setting."""
    with pytest.raises(ConfigError, match="GEMD_SOCKET"):
        default_socket({"HOME": str(tmp_path), "GEMD_SOCKET": "g.sock"})
