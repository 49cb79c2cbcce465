"""A model file's chat template, rendered in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gemd.errors import BadModelFileError, ContextTooLongError, InvalidRequestError

PATIENCE_SECONDS = 2.0
"""For one rendering; real templates take a millisecond."""

START_SECONDS = 20.0
"""For a new process, on a machine that is busy loading a model."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024

LONGEST_CHARS = 8 * 1024 * 1024
"""Of all turns: what a template may write (`gemd.worker.prompting.renderer.OUTPUT_CHARS`)."""


class TemplateRefusedError(Exception):
    """The template rejects these messages, in its own words."""


class ChatTemplate:
    """Renders conversations; used from one thread.

    Args:
        source: The template, Jinja as the Hugging Face ecosystem writes it.
        bos: Text of the model's BOS token.
        eos: Text of its EOS token.
        patience: Seconds for one rendering.

    Raises:
        BadModelFileError: It is no valid template.

    """

    def __init__(
        self, source: str, *, bos: str, eos: str, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._start = {"template": source, "bos": bos, "eos": eos}
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        try:
            _usable(self._started())
        except BadModelFileError:
            self.close()
            raise

    def render(
        self,
        messages: list[dict[str, str]],
        *,
        continue_last: bool = False,
        thinking: bool | None = None,
    ) -> str:
        """The conversation as the model wants to read it.

        Args:
            messages: ``role`` and ``content`` of every turn.
            continue_last: Leave out the opening of a new assistant turn.
            thinking: What the template is told as `enable_thinking`; None tells it nothing.

        Raises:
            ContextTooLongError: The turns alone are longer than what a template may write.
            TemplateRefusedError: The template called `raise_exception`.
            InvalidRequestError: It failed on these messages, or wrote too much.
            BadModelFileError: It took too much time or memory and was stopped.

        """
        _refuse_too_long(messages)
        if self._process is None or self._process.poll() is not None:
            # Stopped by the last conversation, or ended by somebody else since.
            self.close()
            _usable(self._started())
        answer = self._ask(
            {"messages": messages, "continue": continue_last, "thinking": thinking},
            self._patience,
        )
        if answer is None:
            self.close()
            raise BadModelFileError(
                "the model file's chat template was stopped",
                why=f"it used more than {self._patience:g} s or its share of memory",
                advice=("use text prompts instead of chat, or set chat_template in a profile",),
                metadata={"seconds": self._patience},
            )
        if "refused" in answer:
            raise TemplateRefusedError(answer["refused"])
        if "error" in answer:
            raise InvalidRequestError(
                "the model's chat template failed on these messages",
                why=answer["error"],
                metadata={"field": "chat"},
            )
        return answer["text"]

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        with self._process:
            pass
        self._process = None
        self._buffer = b""

    def _started(self) -> dict[str, str] | None:
        try:
            self._process = subprocess.Popen(
                # By path and with -P: it needs nothing of gemd, wherever that is installed.
                [
                    *(sys.executable, "-P", str(Path(__file__).with_name("renderer.py"))),
                    str(os.getpid()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The template cannot log; what it breaks says so in its answer.
                stderr=subprocess.DEVNULL,
                # numpy and OpenBLAS are not loaded there, but a user's sitecustomize may be.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            # No memory or descriptors just now: this conversation's loss, not the worker's.
            return {"error": f"the process that renders it cannot be started: {error}"}
        return self._ask(self._start, START_SECONDS)

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, str] | None:
        """The answer, or None if the process did not give one in time or at all."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return self._read_answer(time.monotonic() + seconds)
        return None

    def _read_answer(self, deadline: float) -> dict[str, str] | None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return None
            data = os.read(descriptor, 1 << 20)
            self._buffer += data
            if not data or len(self._buffer) > MAX_ANSWER_BYTES:
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, str] = json.loads(line)
        return answer


def template_of(
    source: str | None, override: str | None, *, bos: str, eos: str
) -> ChatTemplate | BadModelFileError | None:
    """The template that a model is served with.

    A file whose own template cannot be used still continues text; a chat is then refused
    with the reason. A template out of the settings has to work.

    Args:
        source: The file's own, if it has one.
        override: The settings', if they have one.
        bos: See `ChatTemplate`.
        eos: See `ChatTemplate`.

    Returns:
        None if there is none; what is wrong with the file's own if it cannot be used.

    Raises:
        BadModelFileError: The settings' cannot be used.

    """
    chosen = override or source
    if not chosen:
        return None
    try:
        return ChatTemplate(chosen, bos=bos, eos=eos)
    except BadModelFileError as problem:
        if override:
            raise
        sys.stderr.write(f"no chat with this model: {problem}\n")
        return problem


def _usable(answer: dict[str, str] | None) -> None:
    if answer is None or "error" in answer:
        raise BadModelFileError(
            "the model file's chat template cannot be used",
            why=answer["error"] if answer else "the process that compiles it gave no answer",
            advice=("use text prompts instead of chat, or set chat_template in a profile",),
        )


def _refuse_too_long(messages: list[dict[str, str]]) -> None:
    # Otherwise the template would be blamed, for writing too much.
    size = sum(len(message["content"]) for message in messages)
    if size > LONGEST_CHARS:
        raise ContextTooLongError(
            f"the prompt has {size} characters, {LONGEST_CHARS} are the most",
            why="no model's context holds as many",
            advice=("shorten the prompt",),
            metadata={"field": "chat", "characters": size, "limit": LONGEST_CHARS},
        )
