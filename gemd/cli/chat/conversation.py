"""What has been said so far, and a file that keeps it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.client import Message

FORMAT = 1
LONGEST_BYTES = 32 * 1024 * 1024
"""Of a file; no request may carry more."""

_ROLES: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")


@dataclass
class Conversation:
    """The turns of a conversation, oldest first, and what stands before them."""

    system: str = ""
    """Instructions to the model; empty if there are none."""
    turns: list[Message] = field(default_factory=list)

    def clear(self) -> None:
        """Forget what was said; the instructions stay."""
        self.turns.clear()

    def add(self, question: str, answer: str) -> None:
        """A question with its answer. One without is as if it had not been asked."""
        from gemd.client import Message

        if answer:
            self.turns += [Message("user", question), Message("assistant", answer)]

    def save(self, file: Path) -> None:
        """Write it to a new file that only its user can read.

        Raises:
            CommandError: There is such a file, or it cannot be written.

        """
        content = {
            "format": FORMAT,
            "system": self.system,
            "messages": [{"role": turn.role, "text": turn.text} for turn in self.turns],
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as opened:
                json.dump(content, opened, indent=2, ensure_ascii=False)
                opened.write("\n")
        except OSError as error:
            raise CommandError(
                f"{file} cannot be written", Exit.FAILURE, why=error.strerror or str(error)
            ) from None

    def load(self, file: Path) -> None:
        """Take the place of this one from a file that `save` wrote.

        Raises:
            CommandError: It cannot be read, or is something else. This one stays as it was.

        """
        from gemd.client import Message

        try:
            with file.open("rb") as opened:
                read = opened.read(LONGEST_BYTES + 1)
            if len(read) > LONGEST_BYTES:
                raise _no_conversation(file, "it is too long")
            content = json.loads(read)
        except OSError as error:
            raise CommandError(
                f"{file} cannot be read", Exit.FAILURE, why=error.strerror or str(error)
            ) from None
        except (ValueError, RecursionError) as error:
            raise _no_conversation(file, str(error)) from None
        system, messages = _checked(content, file)
        self.system = system
        self.turns = [Message(role, text) for role, text in messages]


def _checked(
    content: Any, file: Path
) -> tuple[str, list[tuple[Literal["user", "assistant"], str]]]:
    """Instructions and messages: a question of the user and its answer, and so on."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _no_conversation(file, f"it has no format {FORMAT}")
    system, messages = content.get("system"), content.get("messages")
    if not isinstance(system, str) or not isinstance(messages, list) or len(messages) % 2:
        raise _no_conversation(file, "it has no system text, or no messages in pairs")
    found: list[tuple[Literal["user", "assistant"], str]] = []
    for number, one in enumerate(messages):
        role = _ROLES[number % 2]
        text = one.get("text") if isinstance(one, dict) and one.get("role") == role else None
        if not isinstance(text, str) or not text:
            raise _no_conversation(file, f"message {number} is no text of the {role}")
        found.append((role, text))
    return system, found


def _no_conversation(file: Path, why: str) -> CommandError:
    return CommandError(f"{file} is no saved conversation", Exit.FAILURE, why=why)
