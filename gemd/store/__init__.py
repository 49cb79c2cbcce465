"""Bytes on disk and where they came from: pull, verify, delete.

`Store` keeps models below one folder (`layout`), `Operations` runs pulls and other long
work so that it outlives the client that asked for it.
"""

from __future__ import annotations

from gemd.store.kept import Entry
from gemd.store.manifest import Checked, Making, Manifest
from gemd.store.operation import Kind, Operation, State
from gemd.store.operation_journal import OperationJournal
from gemd.store.operations import Operations
from gemd.store.progress import PullProgress, Unit
from gemd.store.releasing import Deleted
from gemd.store.results import Pruned, PrunedItem, Quantized, Verified
from gemd.store.shelf import ModelFile
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
    "OperationJournal",
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
