"""TLS on the TCP port: what may be heard, who is believed, and which files are taken."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gemd.client import AsyncClient, Client, DaemonUnreachableError, Endpoint, RetryPolicy
from gemd.client.errors import AuthenticationError
from gemd.config import Settings
from gemd.errors import ConfigError
from gemd.rpc import listeners, tls
from tests.support.app import Running, serving
from tests.support.certificates import Certificates, make_certificates
from tests.support.methods import free_port

ROOT = Path(__file__).parents[2]
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def pems(tmp_path: Path) -> Certificates:
    """Files that belong together."""
    return make_certificates(tmp_path / "pems")


def with_tls(pems: Certificates, **settings: Any) -> Any:
    """A daemon with a TCP port that speaks TLS."""
    port = free_port(settings.get("tcp_address", "127.0.0.1"))
    return serving(tcp_port=port, tls_certificate=pems.certificate, tls_key=pems.key, **settings)


def token_of(running: Running) -> str:
    """The daemon's token."""
    return running.paths.token.read_text(encoding="ascii").strip()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
async def test_a_client_that_trusts_the_certificate_is_answered(
    pems: Certificates, address: str
) -> None:
    """By number or by name, on loopback or on every address of the machine."""
    async with with_tls(pems, tcp_address=address) as running:
        port = listeners.port_address(running.app._settings).rpartition(":")[2]
        host = "[::1]" if address == "::1" else "localhost"
        async with AsyncClient(
            f"{host}:{port}", token=token_of(running), tls=pems.authority, retry=ONCE
        ) as client:
            assert (await client.info()).version == "0.0.0"
        async with AsyncClient(f"{host}:{port}", tls=pems.authority, retry=ONCE) as client:
            with pytest.raises(AuthenticationError):
                await client.info()


async def test_a_stranger_at_the_port_gets_no_token(pems: Certificates, tmp_path: Path) -> None:
    """Its certificate is another authority's, or another machine's: no call is made at all."""
    another = make_certificates(tmp_path / "another")
    elsewhere = make_certificates(tmp_path / "elsewhere", "desktop.example")
    async with with_tls(pems) as running:
        address = listeners.port_address(running.app._settings)
        async with AsyncClient(address, token="x", tls=another.authority, retry=ONCE) as client:
            with pytest.raises(DaemonUnreachableError, match="is not trusted here"):
                await client.info()
    async with with_tls(elsewhere) as running:
        address = listeners.port_address(running.app._settings)
        async with AsyncClient(address, token="x", tls=elsewhere.authority, retry=ONCE) as client:
            with pytest.raises(DaemonUnreachableError, match="is for other names"):
                await client.info()


async def test_who_speaks_in_the_clear_is_not_answered(pems: Certificates) -> None:
    """A client without TLS gets nothing, and old versions of it neither."""
    async with with_tls(pems) as running:
        address = listeners.port_address(running.app._settings)
        async with AsyncClient(address, token=token_of(running), retry=ONCE) as client:
            with pytest.raises(DaemonUnreachableError, match="may speak TLS only"):
                await client.info()
        assert await running.answer("and others are") == "and others are"


def test_a_clients_texts_leave_the_machine_in_tls_only() -> None:
    """Checked before a channel is made; a socket needs none."""
    with pytest.raises(ValueError, match="TLS only"):
        Client("192.0.2.1:7000", token="x")
    assert Endpoint.parse("desktop.example:7000", tls=True).target == "dns:desktop.example:7000"
    assert Endpoint.parse("192.0.2.1:7000", tls=True).target == "ipv4:192.0.2.1:7000"
    assert Endpoint.parse("[2001:db8::1]:70", tls=True).target == "ipv6:[2001:db8::1]:70"
    with pytest.raises(ValueError, match="socket"):
        Endpoint.parse("/run/gemd.sock", tls=True)
    with pytest.raises(FileNotFoundError):
        Endpoint.parse("192.0.2.1:7000", tls="/nowhere/ca.pem")
    assert "secret" not in repr(Endpoint.parse("127.0.0.1:1", "secret"))


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]
)
def test_no_network_hears_the_token(address: str) -> None:
    """Without TLS the port is refused before anything listens; loopback needs none."""
    with pytest.raises(ConfigError, match="without TLS") as caught:
        listeners.port_credentials(Settings(tcp_port=7000, tcp_address=address))
    assert "in the clear" in caught.value.why
    for loopback in ("127.0.0.1", "127.0.0.2", "::1"):
        plain = Settings(tcp_port=7000, tcp_address=loopback)
        assert listeners.port_credentials(plain) is None


async def test_a_refused_port_leaves_no_daemon(pems: Certificates) -> None:
    """Its start fails as a whole: nothing listens, and no token is made for nothing."""
    running = serving(tcp_port=free_port(), tcp_address="0.0.0.0")
    with pytest.raises(ConfigError, match="without TLS"):
        await running.__aenter__()


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_half_of_a_pair_is_a_wrong_setting(pems: Certificates, given: str) -> None:
    """It names what is missing."""
    file = pems.certificate if given == "tls_certificate" else pems.key
    with pytest.raises(ConfigError) as caught:
        listeners.port_credentials(Settings.model_validate({"tcp_port": 7000, given: file}))
    assert {given, caught.value.metadata["missing"]} == {"tls_certificate", "tls_key"}


def test_a_key_that_others_can_read_is_refused(pems: Certificates) -> None:
    """With the mode it has and the command that mends it."""
    pems.key.chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        tls.server_credentials(pems.certificate, pems.key)
    assert caught.value.metadata["mode"] == "0640"
    assert caught.value.advice == (f"chmod 600 {pems.key}",)


@pytest.mark.parametrize("which", ["certificate", "key"])
def test_a_pipe_is_not_waited_for(pems: Certificates, tmp_path: Path, which: str) -> None:
    """Nobody may ever write to it, and the daemon would not start."""
    pipe = tmp_path / "pipe.pem"
    os.mkfifo(pipe, 0o600)
    files = {"certificate": pems.certificate, "key": pems.key} | {which: pipe}
    with pytest.raises(ConfigError, match="is no file") as caught:
        tls.server_credentials(**files)
    assert caught.value.metadata["path"] == str(pipe)


def test_files_that_do_not_belong_together(pems: Certificates, tmp_path: Path) -> None:
    """The error names the reason, where gRPC would only say that it cannot listen."""
    another = make_certificates(tmp_path / "another")
    with pytest.raises(ConfigError, match="no certificate and key") as caught:
        tls.server_credentials(pems.certificate, another.key)
    assert caught.value.why == "the key is another certificate's"


def test_what_is_no_pem_file(pems: Certificates) -> None:
    """Empty, something else, huge or absent: each is said."""
    for content in (b"", b"\x00\x01\x02", b"-----BEGIN CERTIFICATE-----\nxx\n"):
        pems.certificate.write_bytes(content)
        with pytest.raises(ConfigError, match="no certificate and key"):
            tls.server_credentials(pems.certificate, pems.key)
    pems.certificate.write_bytes(b"x" * (tls.MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        tls.server_credentials(pems.certificate, pems.key)
    pems.certificate.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        tls.server_credentials(pems.certificate, pems.key)
    pems.key.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        tls.server_credentials(pems.key, pems.key)


def test_a_key_with_a_passphrase_asks_nobody(pems: Certificates) -> None:
    """A daemon has no terminal; without this, OpenSSL would open it and wait."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - trustme's own

    key = serialization.load_pem_private_key(pems.key.read_bytes(), None)
    pems.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with pytest.raises(ConfigError, match="no certificate and key") as caught:
        tls.server_credentials(pems.certificate, pems.key)
    assert "passphrase" in caught.value.why


async def test_old_versions_of_tls_are_refused(pems: Certificates) -> None:
    """1.1 and older; 1.2 and 1.3 are spoken."""

    async def version(newest: ssl.TLSVersion, port: int) -> str | None:
        context = ssl.create_default_context(cafile=str(pems.authority))
        context.set_alpn_protocols(["h2"])
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            spoken: str | None = writer.get_extra_info("ssl_object").version()
            return spoken
        finally:
            writer.close()

    async with with_tls(pems) as running:
        port = int(listeners.port_address(running.app._settings).rpartition(":")[2])
        with pytest.warns(DeprecationWarning, match="TLS"):  # noqa: SIM117 - too long in one line
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await version(ssl.TLSVersion.TLSv1_1, port)
        assert await version(ssl.TLSVersion.TLSv1_2, port) == "TLSv1.2"
        assert await version(ssl.TLSVersion.TLSv1_3, port) == "TLSv1.3"


def made_by_the_guide(folder: Path) -> Certificates:
    """What the command in the guide for authors of apps makes, for this machine."""
    guide = (ROOT / "proto" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(openssl req .*?)```", guide, re.DOTALL)
    assert found is not None
    command = found[1].replace("~/.config/gemd", str(folder)).replace("desktop.lan", "localhost")
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)
    certificate = folder / "certificate.pem"
    return Certificates(certificate, certificate, folder / "key.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_guides_command_makes_files_that_are_taken(tmp_path: Path) -> None:
    """A certificate that vouches for itself is trusted by who has it, and by nobody else."""
    made = made_by_the_guide(tmp_path)
    async with with_tls(made) as running:
        port = listeners.port_address(running.app._settings).rpartition(":")[2]
        address = f"localhost:{port}"
        token = token_of(running)
        async with AsyncClient(address, token=token, tls=made.authority, retry=ONCE) as client:
            assert (await client.info()).version == "0.0.0"
        async with AsyncClient(address, token=token, tls=True, retry=ONCE) as client:
            with pytest.raises(DaemonUnreachableError):
                await client.info()
