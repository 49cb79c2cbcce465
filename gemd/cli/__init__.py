"""`gemctl`, the command line of gemd.

Nothing here imports gRPC, pydantic or the client before a command needs it: `--help` and
shell completion have to be quick.
"""

from __future__ import annotations

from gemd.cli.app import main

__all__ = ["main"]
