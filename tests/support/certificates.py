"""Certificates for a test: an authority, and what it vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """Files of an authority and of a server that it vouches for."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, *names: str) -> Certificates:
    """Files in the folder, the key for nobody but us; names are host names or IP addresses."""
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("127.0.0.1", "::1", "localhost")))
    made = Certificates(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(made.authority)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(made.certificate, append=True)
    made.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(made.key)
    return made
