"""Bytes on disk and where they came from: pull, verify, delete.

`Store` keeps models below one folder (`layout`), `Operations` runs pulls and other long
work so that it outlives the client that asked for it.
"""

from __future__ import annotations

from gemd.store.manifest import Checked, Making, Manifest
from gemd.store.operations import Kind, Operation, Operations, State
from gemd.store.progress import PullProgress, Unit
from gemd.store.results import Pruned, PrunedItem, Quantized, Verified
from gemd.store.shelf import Deleted, Entry, ModelFile
from gemd.store.store import Store
from gemd.store.transport import Retries, Transport

__all__ = [
    "Checked",
    "Deleted",
    "Entry",
    "Kind",
    "Making",
    "Manifest",
    "ModelFile",
    "Operation",
    "Operations",
    "Pruned",
    "PrunedItem",
    "PullProgress",
    "Quantized",
    "Retries",
    "State",
    "Store",
    "Transport",
    "Unit",
    "Verified",
]
