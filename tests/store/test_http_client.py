"""Our HTTP client: proxies, certificates, credentials, redirects."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.store.http import (
    Http,
    UnreachableError,
    proxy_for,
    split_credentials,
    with_credentials,
)
from gemd.store.threads import Stop, Stopped
from tests.support.file_server import BlackHole, FileServer, Redirect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server with one file."""
    with FileServer() as running:
        running.files["/file"] = b"content"
        yield running


def _body(http: Http, url: str) -> bytes:
    with http.get(url, stop=Stop()) as reply:
        return reply.read(1000)


def test_a_proxy_is_used_and_gets_its_login(server: FileServer) -> None:
    """A plain request goes to the proxy with the whole address and the proxy's credentials."""
    server.files["http://far.example/file"] = b"through the proxy"
    proxy = server.url.replace("http://", "http://me:secret@")
    assert _body(Http({"http_proxy": proxy}), "http://far.example/file") == b"through the proxy"
    assert server.requests[0].headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize(
    "environ, url, expected",
    [
        ({}, "http://a.example/", None),
        ({"http_proxy": "http://p:1"}, "https://a.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example/", "p"),
        ({"all_proxy": "p:1"}, "https://a.example/", "p"),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "b.example,.example"}, "http://a.example/", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://a.example/", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:8/", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "ample"}, "http://a.example/", "p"),
    ],
)
def test_the_environment_names_the_proxy(
    environ: Mapping[str, str], url: str, expected: str | None
) -> None:
    """Per scheme, for all, and with exceptions."""
    proxy = proxy_for(url, environ)
    assert (proxy.hostname if proxy else None) == expected


def test_a_socks_proxy_is_said_to_be_unsupported() -> None:
    """The error names the kind; pip may know it."""
    with pytest.raises(UnreachableError, match="socks5"):
        _body(Http({"all_proxy": "socks5://p:1"}), "http://a.example/")


def test_a_name_without_a_password_is_a_login(server: FileServer) -> None:
    """Indexes take a token as the name; the password is empty then, its colon is not."""
    _body(Http(), server.url.replace("http://", "http://token@") + "/file")
    assert server.requests[0].headers["Authorization"] == "Basic dG9rZW46"


def test_no_error_tells_a_password(server: FileServer) -> None:
    """Neither of an address that is none, nor of one that a server sends us to."""
    for url in ("http://me:secret@/x", "ftp://me:secret@a.example/", "http://me:sec/ret@a/"):
        with pytest.raises(UnreachableError) as caught:
            _body(Http(), url)
        assert "ret@" not in str(caught.value)
    server.always(Redirect("ftp://me:secret@a.example/x?signature=abc"))
    with pytest.raises(UnreachableError) as caught:
        _body(Http(), f"{server.url}/file")
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_redirects_are_bounded(server: FileServer) -> None:
    """A circle ends in an error."""
    server.always(Redirect(f"{server.url}/file"))
    with pytest.raises(UnreachableError, match="more than 10 times"):
        _body(Http(), f"{server.url}/file")


def test_a_redirect_to_another_scheme_is_refused(server: FileServer) -> None:
    """A server cannot send us to a local file."""
    server.always(Redirect("file:///etc/hostname"))
    with pytest.raises(UnreachableError, match="no http address"):
        _body(Http(), f"{server.url}/file")


def test_an_address_that_is_none(server: FileServer) -> None:
    """Bad addresses are errors of ours, not of the library."""
    for url in ("ftp://a.example/", "http:///x", "http://a.example:99999/", "http://[/", "x"):
        with pytest.raises(UnreachableError):
            _body(Http(), url)


def test_stop_interrupts_a_silent_server(server: FileServer) -> None:
    """A thread that waits for an answer ends as soon as it is told to."""
    server.always(BlackHole())
    stop = Stop()
    outcome: list[type[BaseException]] = []

    def work() -> None:
        try:
            with Http(read_timeout_s=300).get(f"{server.url}/file", stop=stop):
                pass
        except (Stopped, UnreachableError) as error:
            outcome.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert server.reached.wait(60)
    stop.set()
    thread.join(30)
    assert outcome == [Stopped]


@given(
    st.text(st.characters(codec="ascii", exclude_characters=":"), min_size=1),
    st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_credentials_survive_the_way_through_a_url(user: str, password: str) -> None:
    """Whatever characters they have, they come out as they went in."""
    url = with_credentials("https://a.example:1/p?q#f", f"{user}:{password}")
    assert split_credentials(url) == ("https://a.example:1/p?q#f", f"{user}:{password}")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody else trusts, with its key in one file."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not on this machine")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return folder


@pytest.fixture
def tls_url(certificate: Path) -> Iterator[str]:
    """A server that speaks TLS with that certificate and answers two connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "both.pem")
    with socket.create_server(("localhost", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as channel:
                        channel.recv(4096)
                        channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("name", ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environment_names_the_certificates(certificate: Path, tls_url: str, name: str) -> None:
    """A company's own authority is trusted if it is named."""
    assert _body(Http({name: str(certificate / "cert.pem")}), tls_url) == b"hi"


def test_certificates_of_pips_settings_count(certificate: Path, tls_url: str) -> None:
    """As named in pip.conf."""
    assert _body(Http(certificates=str(certificate / "cert.pem")), tls_url) == b"hi"


@pytest.fixture
def tunnel() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that lets connections through, and the heads of the requests for them."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            inner, _ = listener.accept()
            head = inner.recv(4096)
            heads.append(head)
            host, _, port = head.split()[1].decode().rpartition(":")
            with inner, socket.create_connection((host, int(port))) as outer:
                inner.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_pump, args=(outer, inner))
                back.start()
                _pump(inner, outer)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://me:secret@127.0.0.1:{listener.getsockname()[1]}", heads
        thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_tls_goes_through_a_tunnel(
    certificate: Path, tls_url: str, tunnel: tuple[str, list[bytes]]
) -> None:
    """A proxy for https gets CONNECT and its login, and never sees the request."""
    proxy, heads = tunnel
    environ = {"https_proxy": proxy, "SSL_CERT_FILE": str(certificate / "cert.pem")}
    assert _body(Http(environ), tls_url) == b"hi"
    assert heads[0].startswith(b"CONNECT localhost:")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in heads[0]


def test_an_untrusted_certificate_is_refused(tls_url: str) -> None:
    """The error names TLS's reason."""
    with pytest.raises(UnreachableError, match=r"(?i)certificate"):
        _body(Http(), tls_url)
