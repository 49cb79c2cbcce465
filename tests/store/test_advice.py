"""What errors tell the user to type."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from gemd.cli.app import COMMANDS

ROOT = Path(__file__).parents[2] / "gemd"
COMMAND = re.compile(r"gemctl ([a-z]+)")


def _named() -> dict[str, str]:
    """Commands of gemctl that begin a text anywhere in gemd, and where."""
    found = {}
    for file in ROOT.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        # Parsing takes long, and most files advise nothing.
        for node in ast.walk(ast.parse(source)) if "gemctl " in source else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for command in COMMAND.findall(node.value if _advises(node.value) else ""):
                    found[command] = f"{file.relative_to(ROOT)}:{node.lineno}"
    return found


def _advises(text: str) -> bool:
    return text.startswith("gemctl ") and "\n" not in text


def test_every_command_that_is_advised_exists() -> None:
    """A user who types what an error says is never told that there is no such command."""
    named = _named()
    assert "pull" in named
    assert {name: place for name, place in named.items() if name not in COMMANDS} == {}
