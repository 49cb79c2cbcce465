"""What nobody is told: prompts in files, tokens in workers and command lines."""

from __future__ import annotations

import contextlib
import json
import resource
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from gemd.client import Client, GemdClientError, GenerationOptions, Message, Sampling
from tests.support.daemon_process import serving
from tests.support.desktop import desktop
from tests.support.hub_faults import PULLED, TOKEN, hubbed, wait_for
from tests.support.stores import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPT = "Xyzzyplugh"
"""A word of the prompt, which the answer repeats."""
SCRIPTED = GenerationOptions(model="scripted")
SECRETS = {
    "HF_TOKEN": TOKEN,
    "HUGGING_FACE_HUB_TOKEN": TOKEN,
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "NVIDIA_API_KEY": "nvapi-secret",
    "TORCH_hub_token": "small-secret",
    "HTTPS_PROXY": "http://me:proxy-secret@127.0.0.1:9",
}


def mentions(folder: Path, words: str) -> list[str]:
    """Files below a folder that hold the words, in UTF-8 or as JSON has them."""
    found = []
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file() and words.encode() in file.read_bytes():
                found.append(str(file.relative_to(folder)))
    return found


def ask(client: Client, **script: Any) -> None:
    """One answer, or one failure, to a prompt with the word in it."""
    text = json.dumps({"tokens": [f"{PROMPT} "] * 3} | script)
    with contextlib.suppress(GemdClientError):
        list(client.generate(text, SCRIPTED))


def test_prompts_and_answers_are_in_no_file() -> None:
    """Neither of those that are answered, nor of those that fail, crash, stop or are rated."""
    with hubbed(content(1000), **SECRETS) as user:
        with serving(user.home, "--autostarted", **user.environ()), user.client() as client:
            ask(client)
            with contextlib.suppress(GemdClientError):
                list(client.generate(f"{PROMPT} " * 50_000, SCRIPTED))
            with client.generate(
                json.dumps({"tokens": [PROMPT] * 999, "token_seconds": 0.1}), SCRIPTED
            ) as stopped:
                next(stopped)
            with contextlib.suppress(GemdClientError):
                client.score(PROMPT, [f" {PROMPT}"], model="scripted")
            with contextlib.suppress(GemdClientError):
                client.embed([PROMPT], model="scripted")
            client.count_tokens(PROMPT, model="scripted")
            ask(client, raise_at=1)
            ask(client, crash_at=1, signal=11)
            ask(client, garbage_at=1)
        assert "ENGINE_CRASHED" in user.home.log()
        assert mentions(user.home.path, "ENGINE_CRASHED")
        assert mentions(user.home.path, PROMPT) == []


def test_prompts_of_a_real_model_are_in_no_file(smollm2: Path, tmp_path: Path) -> None:
    """Llama.cpp has a log of its own, and a template its errors."""
    with desktop(tmp_path / "store") as running, running.client() as client:
        options = GenerationOptions(model=str(smollm2), sampling=Sampling(max_tokens=4))
        list(client.chat([Message("user", f"Say {PROMPT}.")], options))
        with pytest.raises(GemdClientError):
            list(client.chat(f"{PROMPT} " * 20_000, options))
        # The line is written when the client has been told.
        wait_for(lambda: bool(mentions(running.home, "CONTEXT_TOO_LONG")), "the line in the log")
        assert mentions(running.home, PROMPT) == []


def in_process(process: psutil.Process) -> str:
    """What any program of the user can see of one: its variables and its command line."""
    return "\n".join([*map("=".join, process.environ().items()), *process.cmdline()])


@pytest.fixture
def cores_allowed() -> Iterator[None]:
    """A crash of what starts now would leave a core, where the system allows one at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.usefixtures("cores_allowed")
def test_workers_know_no_secret() -> None:
    """Not in their environment, nor anybody in a command line; and a crash leaves no core."""
    with hubbed(content(100_000), **SECRETS, GEMD_TCP_PORT="0") as user:
        user.hub.token = TOKEN
        environ = user.environ()
        with serving(user.home, **environ) as process, user.client() as client:
            client.wait(client.pull(PULLED).name)
            ask(client)
            daemon = psutil.Process(process.pid)
            assert TOKEN in in_process(daemon)
            assert not any("secret" in word for word in daemon.cmdline())
            workers = daemon.children(recursive=True)
            assert workers
            for worker in workers:
                assert "secret" not in in_process(worker)
            for each in (daemon, *workers):
                soft, hard = each.rlimit(resource.RLIMIT_CORE)
                # See `leave_no_core`.
                assert soft == (1 if hard else 0)
        assert mentions(user.home.path, TOKEN) == []
        assert mentions(user.home.path, "proxy-secret") == []
