"""`gemctl quantize` with a real daemon, real workers and real weights."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.client import GenerationOptions
from tests.support.dequantized import write_f16
from tests.support.desktop import (
    SETTING,
    USERS_OWN,
    Desktop,
    alive,
    desktop,
    serving,
    wait_until,
)
from tests.support.tiny_diffusion import ANSWERS, TINY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from tests.support.gemctl import Gemctl

PATIENCE = 600.0
"""Seconds: a verification reads the same text with both models."""
TENSORS = 20
"""So many are finished when something happens in the middle."""
VARIANT = "q4_0-local"


@pytest.fixture(scope="module", name="f16")
def _f16(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SmolLM2 in F16, 271 MB."""
    folder = tmp_path_factory.mktemp("f16")
    yield write_f16(smollm2, folder / "smol.gguf")
    shutil.rmtree(folder)


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Path]:
    """An empty store."""
    folder = tmp_path / "store"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_checkpoint_becomes_a_variant_that_answers(store: Path) -> None:
    """It is made, verified, listed, and answers under its name, also after a restart."""
    name = f"{TINY.name}:nvfp4-local"
    with desktop(store) as one:
        done = patient(one)("quantize", str(TINY), "--to", "nvfp4")
        assert done.returncode == 0, done.stderr
        assert "size-ratio" in done.stdout
        assert f"gemctl run --model {name}" in done.stderr
        with one.client() as client:
            model = client.model(TINY.name)
        [variant] = model.variants
        assert (variant.id, variant.quantization) == ("nvfp4-local", "NVFP4")
        assert (variant.source, variant.origin) == ("quantized", str(TINY))
    made = store / "made" / TINY.name / "nvfp4-local"
    provenance = json.loads((made / "provenance.json").read_text())
    sources = {each["name"]: each["sha256"] for each in provenance["source"]["files"]}
    assert sources["model.safetensors"] == sha256(TINY / "model.safetensors")
    assert {each["name"]: each["sha256"] for each in provenance["files"]} == {
        each.name: sha256(each)
        for each in made.iterdir()
        if each.name not in {"provenance.json", "tensors.json"}
    }
    assert provenance["versions"]["torch"]
    assert not (store / "work" / TINY.name).exists()
    with desktop(store) as one, one.client() as client:
        answer = client.chat("Hello", GenerationOptions(model=name)).answer()
        assert answer.text == ANSWERS["Hello"]
        again = client.wait(client.quantize(str(TINY), "NVFP4").name)
        assert (again.total_bytes, again.raw.quantize.size_bytes) == (0, variant.disk_bytes)
        client.unload(name)
        client.wait(client.delete(name).name)
        assert not made.exists()
        assert TINY.name not in {each.id for each in client.models()}


@pytest.mark.slow
def test_what_cannot_be_is_refused_before_any_byte(f16: Path, smollm2: Path, store: Path) -> None:
    """An unknown type, a source that is gone or quantized, no source, and a variant that is not."""
    with desktop(store) as one:
        for arguments, code, said in (
            ((str(f16), "--to", "Q9_9"), 2, "gemd makes F32, F16, BF16, Q8_0"),
            (("/nowhere/f16.gguf", "--to", "Q4_0"), 4, "no file or directory has that name"),
            ((str(f16.parent), "--to", "Q4_0"), 2, "without *.safetensors files"),
            ((str(f16), "--to", "NVFP4"), 2, "NVFP4 is made of a directory"),
            ((str(f16), "--to", "Q4_0", "--dense"), 2, "has no dense layers to choose"),
            ((str(f16), "--to", "Q4_0", "--variant", "../x"), 2, "cannot be the id"),
            (("smollm2-135m", "--to", "Q4_0"), 2, "has nothing that Q4_0 could be made from"),
            (("smollm2-135m:q4_1", "--to", "Q4_0"), 2, "its weights are Q4_1 already"),
            (("smollm2-135m", "--to", "Q4_0", "--from", "f16"), 2, "has no variant 'f16'"),
        ):
            done = one.gemctl("quantize", *arguments)
            assert (done.returncode, said in done.stderr) == (code, True), done.stderr
        # Only its header tells that a file is quantized: that is the quantizer's to read.
        done = one.gemctl("quantize", str(smollm2), "--to", "Q4_0")
        assert done.returncode == 6, done.stderr
        assert "the source has to be F32, F16, BF16" in done.stderr
    assert not list((store / "made").glob("*/*"))
    assert not list(store.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "daemon"])
def test_a_killed_process_goes_on_to_the_same_bytes(
    victim: str, f16: Path, store: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle: what was done is not done again, and the file is the same."""
    with own_home() as (home, environ):
        environ["GEMD_STORE_DIR"] = str(store)
        with killable(home, environ) as one:
            command = one.gemctl.start("quantize", str(f16), "--to", "Q4_0", "--json")
            at_work(store, "smol")
            [worker] = quantizers(one)
            if victim == "worker":
                worker.send_signal(signal.SIGKILL)
                stdout, stderr = command.communicate(timeout=PATIENCE)
                assert "ended by SIGKILL" in stderr
            else:
                one.process.send_signal(signal.SIGKILL)
                one.process.wait()
                wait_until(lambda: not alive(worker), what="the worker's end")
                assert not weights(store, "smol").exists()
        if victim == "daemon":
            with killable(home, environ):
                stdout, stderr = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0, stderr
        operation = json.loads(stdout)
        assert operation["quantize"]["variant"] == VARIANT
    undisturbed = tmp_path / "undisturbed"
    with desktop(undisturbed) as one:
        assert patient(one)("quantize", str(f16), "--to", "Q4_0").returncode == 0
    assert sha256(weights(store, "smol")) == sha256(weights(undisturbed, "smol"))
    shutil.rmtree(undisturbed)


@pytest.mark.slow
def test_a_cancelled_one_is_gone_on_with(f16: Path, store: Path) -> None:
    """Nothing is on disk as a variant after a cancel; the next try has less to do."""
    with desktop(store) as one:
        command = one.gemctl.start("quantize", str(f16), "--to", "Q4_0")
        at_work(store, "smol")
        with one.client() as client:
            [operation] = client.operations()
            assert operation.kind == "QUANTIZE"
            client.cancel(operation.name)
        _, stderr = command.communicate(timeout=60)
        assert command.returncode == 1
        assert "was cancelled" in stderr
        assert not quantizers(one)
        assert not made(store, "smol").exists()
        assert (store / "work" / "smol" / VARIANT / "files" / "journal.jsonl").exists()
        done = patient(one)("quantize", str(f16), "--to", "Q4_0")
        assert done.returncode == 0, done.stderr
        assert not (store / "work" / "smol").exists()


@pytest.mark.slow
def test_a_full_disk_is_said_before_any_byte(f16: Path, tmp_path: Path) -> None:
    """With how much is missing; a file system of 20 MB has no room for 92."""
    with small_disk(tmp_path / "disk") as disk, desktop(disk / "store") as one:
        done = one.gemctl("quantize", str(f16), "--to", "Q4_0")
        assert done.returncode == 5, done.stderr
        assert "free" in done.stderr
        written = sum(each.stat().st_blocks * 512 for each in (disk / "store").rglob("*.part"))
        # The header, with the vocabulary.
        assert written < 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q4_K_M", "Q4_0"])
def test_the_real_model_is_quantized_verified_and_answers(
    kind: str, f16: Path, store: Path
) -> None:
    """SmolLM2, out of F16: KL divergence and perplexity are in the output, and it answers."""
    with desktop(store) as one:
        done = patient(one)("quantize", str(f16), "--to", kind)
        assert done.returncode == 0, done.stderr
        print(done.stdout)  # noqa: T201 - figures of the run
        for check in ("sampled-error", "kl-divergence", "top-1", "perplexity", "smoke"):
            assert check in done.stdout
        name = f"smol:{kind.lower()}-local"
        assert one.gemctl("load", name).returncode == 0
        # The file's own template makes it talk of France, if not always of Paris.
        asked = ("--temperature", "0", "--max-tokens", "24", "What is the capital of France?")
        done = one.gemctl("run", "--model", name, *asked)
        assert done.returncode == 0, done.stderr
        assert "France" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_the_tiny_diffusion_model_answers_after_nvfp4(store: Path, *, dense: bool) -> None:
    """Sixteen of sixteen, by the daemon's own engine, from the variant that was made."""
    variant = "nvfp4-dense-local" if dense else "nvfp4-local"
    with desktop(store) as one:
        options = ("--dense",) if dense else ()
        done = patient(one)("quantize", str(TINY), "--to", "nvfp4", *options)
        assert done.returncode == 0, done.stderr
        name = f"{TINY.name}:{variant}"
        assert f"gemctl run --model {name}" in done.stderr
        with one.client() as client:
            answers = [
                client.chat(asked, GenerationOptions(model=name)).answer().text for asked in ANSWERS
            ]
        assert answers == list(ANSWERS.values())


# --- what they need ---------------------------------------------------------------------


def patient(one: Desktop) -> Gemctl:
    """The command line of one that has time."""
    return dataclasses.replace(one.gemctl, patience=PATIENCE)


def made(store: Path, model: str) -> Path:
    """The folder of the result."""
    return store / "made" / model / VARIANT


def weights(store: Path, model: str) -> Path:
    """The file of the result."""
    return made(store, model) / f"{model}-Q4_0.gguf"


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def at_work(store: Path, model: str) -> None:
    """Return when the quantizer has finished some tensors."""
    journal = store / "work" / model / VARIANT / "files" / "journal.jsonl"

    def begun() -> bool:
        try:
            return journal.read_bytes().count(b"\n") > TENSORS
        except OSError:
            return False

    wait_until(begun, seconds=60, what="the journal")


def quantizers(one: Desktop) -> list[psutil.Process]:
    """The daemon's quantizing processes."""
    return [each for each in one.workers() if "gemd.worker.quantize" in each.cmdline()]


@contextlib.contextmanager
def own_home() -> Iterator[tuple[Path, dict[str, str]]]:
    """A home that outlives its daemon, and the environment of that."""
    with tempfile.TemporaryDirectory(prefix="gemd-") as name:
        home = Path(name)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(USERS_OWN)}
        yield (
            home,
            {
                **kept,
                **SETTING,
                "HOME": str(home),
                "GEMD_SOCKET": str(home / "run" / "gemd.sock"),
                "GEMD_AUTOSTART": "0",
            },
        )


@contextlib.contextmanager
def killable(home: Path, environ: dict[str, str]) -> Iterator[Desktop]:
    """A daemon in that home, which a test may kill."""
    with serving(home, environ) as one:
        yield one


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 20 MB in memory."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "gemd-test", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
