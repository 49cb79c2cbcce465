"""What must not hurt: killed processes, cancelled and stopped clients; and what idling costs."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.client import Delta, EngineError
from tests.support.desktop import (
    MODEL,
    PARIS,
    REPOSITORY,
    Desktop,
    alive,
    asking,
    desktop,
    serving,
    wait_until,
)
from tests.support.workers import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPPED_CLIENT = """
import os, signal, sys
from gemd.client import Client, Delta, Finished, GenerationOptions, Sampling

sampling = Sampling(max_tokens=300, ignore_eos=True, logprobs=20)
with Client(sys.argv[1]) as client:
    tokens = 0
    for event in client.chat("Count to a thousand.", GenerationOptions(sampling=sampling)):
        if isinstance(event, Delta):
            if not tokens:
                print("stopping", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
            tokens += len(event.token_ids)
        if isinstance(event, Finished):
            print(tokens, event.usage.completion_tokens, flush=True)
"""


def test_a_client_that_never_reads_does_not_slow_the_others(running: Desktop) -> None:
    """Its process is stopped, so nothing of its answer is taken; the others get theirs.

    When it goes on it finds its whole answer, with every token: 100 kB, which is more than
    gRPC sends to somebody who does not read.
    """
    with (
        subprocess.Popen(
            [sys.executable, "-c", STOPPED_CLIENT, str(running.socket)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        ) as lazy,
        running.client() as client,
    ):
        try:
            assert lazy.stdout is not None
            assert lazy.stdout.readline() == "stopping\n"
            for _ in range(5):
                assert "Paris" in client.chat(PARIS, asking()).text()
            lazy.send_signal(signal.SIGCONT)
            assert lazy.stdout.readline() == "300 300\n"
        finally:
            lazy.kill()


def test_two_hundred_cancelled_streams_leave_nothing_behind(running: Desktop) -> None:
    """No memory, file descriptor or sequence is lost in daemon or worker."""
    options = asking(max_tokens=200, ignore_eos=True)

    def cancel(streams: int) -> None:
        with running.client() as client:
            for number in range(streams):
                if number % 2:
                    with client.generate("one two", options) as stream:
                        assert any(isinstance(event, Delta) for event in stream)
                else:
                    # Leaving the loop is enough: nobody holds the stream any more.
                    for event in client.generate("one two", options):
                        if isinstance(event, Delta):
                            break
            wait_until(lambda: not active(), what="the end of the cancelled requests")

    def active() -> int:
        with running.client() as client:
            status = client.status()
        return sum(model.active_requests for model in status.models)

    cancel(20)
    processes = [running.daemon(), *running.workers()]
    assert len(processes) == 2
    before = [(p.num_fds(), p.memory_info().rss) for p in processes]
    cancel(200)
    for process, (descriptors, rss) in zip(processes, before, strict=True):
        assert process.is_running()
        wait_until(
            lambda p=process, n=descriptors: p.num_fds() <= n + 2,  # type: ignore[misc] # bound now
            what="closing the descriptors",
        )
        assert process.memory_info().rss - rss < 16 << 20
    # All four sequences can still be had at once: each stream speaks while the others go on.
    with contextlib.ExitStack() as stack:
        for number in range(4):
            client = stack.enter_context(running.client())
            stream = stack.enter_context(client.generate(f"{number}, {number}", options))
            assert any(isinstance(event, Delta) for event in stream)
        assert active() == 4


def test_a_killed_worker_fails_its_streams_and_the_next_request_is_answered(store: Path) -> None:
    """The client keeps its tokens, gets ABORTED ENGINE_CRASHED, and can simply ask again.

    Neither a process nor a descriptor of the worker stays behind.
    """
    with desktop(store) as one, one.client() as client:
        client.load_and_wait(MODEL, deadline=60)
        family = one.daemon().children(recursive=True)
        descriptors = one.daemon().num_fds()
        texts: list[str] = []

        def listen() -> None:
            for event in client.chat("Tell me a story.", asking(max_tokens=400, ignore_eos=True)):
                if isinstance(event, Delta):
                    texts.append(event.text)
                    if len(texts) == 3:
                        one.workers()[0].send_signal(signal.SIGKILL)

        with pytest.raises(EngineError) as caught:
            listen()
        assert (caught.value.code, caught.value.reason) == ("ABORTED", "ENGINE_CRASHED")
        assert "SIGKILL" in str(caught.value) + str(caught.value.metadata)
        assert len("".join(texts)) > 3
        assert "Paris" in client.chat(PARIS, asking()).text()
        assert len(one.workers()) == 1
        wait_until(lambda: not any(alive(p) for p in family), what="the end of the first worker")
        assert len(one.daemon().children(recursive=True)) == len(family)
        wait_until(
            lambda: one.daemon().num_fds() <= descriptors,
            what="closing the first one's descriptors",
        )


def test_a_killed_daemon_takes_its_workers_along(store: Path) -> None:
    """Within a second, in mid-answer, renderer included; the next one starts on its socket."""
    with desktop(store) as one:
        with one.client() as client:
            stream = client.chat(PARIS, asking(max_tokens=900, ignore_eos=True))
            assert any(isinstance(event, Delta) for event in stream)
            family = one.daemon().children(recursive=True)
            assert len(family) == 2
            one.process.kill()
            one.process.wait()
            for process in family:
                wait_until_gone(process.pid, seconds=1)
        assert one.socket.exists()
        with serving(one.home, one.environ) as another, another.client() as client:
            assert "Paris" in client.chat(PARIS, asking()).text()
            assert "stale_socket_removed" in another.log()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_daemon_loads_no_engine_opens_no_gpu_and_stays_small(store: Path) -> None:
    """Seen from outside, on a live daemon that has done all its kinds of work.

    The interpreter itself tells each import; the kernel tells the open and mapped files.
    """
    with desktop(store, PYTHONPROFILEIMPORTTIME="1") as one:
        assert resident_mb(one) <= 80
        with one.client() as client:
            assert "Paris" in client.chat(PARIS, asking()).text()
            client.score("The capital of France is", [" Paris"], model=MODEL)
            client.embed(["a cat"], model=MODEL)
            client.count_tokens(PARIS, model=MODEL)
            client.status()
        assert resident_mb(one) <= 80
        assert one.workers()
        files = set(open_files(one.process.pid))
        assert "/dev/null" in files, "device files are seen"
        # A CUDA context needs nvidia-uvm; NVML, which only asks, opens nvidiactl and nvidia0.
        contexts = ("/dev/nvidia-uvm", "/dev/dri", "/dev/kfd")
        assert not [file for file in files if file.startswith(contexts)]
        assert not [f for f in files if any(name in f for name in ("llama", "ggml", "torch"))]
        assert [f for f in files if "grpc" in f], "the maps of a gRPC server have gRPC in them"
        worker = set(open_files(one.workers()[0].pid))
        assert [f for f in worker if "libllama" in f], "and the same look finds llama.cpp there"
        told = [line for line in one.log().splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in told}
    assert {"gemd", "grpc", "pydantic"} <= modules
    assert not modules & {"torch", "transformers", "llama_cpp", "xllamacpp", "diffusers"}


def resident_mb(one: Desktop) -> float:
    """Resident size of the daemon alone, in units of 10^6 bytes."""
    return one.daemon().memory_info().rss / 1e6


def open_files(pid: int) -> Iterator[str]:
    """All that the process has open or mapped, device files included."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # One may be closed while we look.
        with contextlib.suppress(OSError):
            yield str(descriptor.readlink())
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        yield line.split(maxsplit=5)[-1]
