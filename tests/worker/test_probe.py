"""llama.cpp's own plans, and the formula beside them."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from gemd.footprint import Placement, gguf_shape, predict_gguf, profile_shape, read_gguf_header
from gemd.footprint.compute import SCORED_OUTPUTS
from gemd.footprint.memory import CACHE_BYTES
from gemd.wire.probe import Answer, Planned, Question
from tests.support.gemma4_files import GEMMA4, architecture_of, write_header_only

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.footprint import GgufShape

MIB = 1024**2
LOGGED = 0.011 * MIB
"""llama.cpp's log has hundredths of a MiB."""
CONTEXTS = (4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 131072)


def asked(questions: list[Question]) -> list[Answer]:
    """What one probe process answers, in order."""
    lines = "".join(question.model_dump_json() + "\n" for question in questions)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "gemd.worker.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    # Another thread, because both pipes are full long before the last answer.
    writer = threading.Thread(target=_write, args=(process.stdin, lines))
    writer.start()
    answers = [Answer.model_validate_json(process.stdout.readline()) for _ in questions]
    writer.join()
    process.stdin.close()
    assert process.wait(timeout=20) == 0, "it ends when its input does"
    process.stdout.close()
    return answers


def _write(file: object, text: str) -> None:
    file.write(text)  # type: ignore[attr-defined] # the pipe
    file.flush()  # type: ignore[attr-defined]


def planned(answer: Answer) -> Planned:
    """The plan of an answer that has one."""
    assert answer.planned is not None, answer.error
    return answer.planned


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Header-only files of the five Gemma 4 models, by profile."""
    folder = tmp_path_factory.mktemp("gemma4")
    for model in GEMMA4:
        write_header_only(folder / f"{model}.gguf", architecture_of(model), model)
    return {model: folder / f"{model}.gguf" for model in GEMMA4}


@pytest.mark.slow
def test_the_cache_is_exact_in_300_contexts_and_scratch_is_enough(files: dict[str, Path]) -> None:
    """Five models, ten contexts from 4 K to 128 K, three cache types, one and four sequences.

    KV to the last digit that llama.cpp logs, by the header and by the profile's table alone;
    scratch never too little by more than 1 % and at most 1.35 times what llama.cpp takes.
    """
    cases = list(itertools.product(GEMMA4, CONTEXTS, CACHE_BYTES, (1, 4)))
    assert len(cases) == 300
    answers = asked(
        [
            Question(
                path=str(files[model]),
                context_tokens=context,
                max_sequences=sequences,
                cache_type=cache_type,
            )
            for model, context, cache_type, sequences in cases
        ]
    )
    shapes = {model: _shapes(model, files[model]) for model in GEMMA4}
    for (model, context, cache_type, sequences), answer in zip(cases, answers, strict=True):
        plan = planned(answer)
        case = f"{model} {context} {cache_type} {sequences}"
        for shape in shapes[model]:
            prediction = predict_gguf(
                shape,
                context_tokens=context,
                max_sequences=sequences,
                placement=Placement(cache_type=cache_type),
            )
            assert abs(prediction.host.kv_cache - plan.kv_bytes) <= LOGGED * len(plan.caches), case
            compute = plan.scratch_bytes("compute")["CPU"]
            # Rows of logits that nobody scores are allocated too: they are part of the peak.
            scratch = prediction.host.compute + prediction.host_peak - prediction.host.total
            scratch -= SCORED_OUTPUTS * shape.shape.vocabulary * 4
            assert 0.99 * compute <= scratch <= 1.35 * compute, case


def _shapes(model: str, path: Path) -> tuple[GgufShape, GgufShape]:
    """By the header of the file, and by what a profile says of a model that nobody has."""
    return (
        gguf_shape(read_gguf_header(path)),
        profile_shape(architecture_of(model), {"embedding": 1, "rest": 1}),
    )


def test_both_caches_of_a_model_with_windows_are_told(files: dict[str, Path]) -> None:
    """Five layers of the 26B attend to everything, 25 to a window of 1024 for each sequence."""
    (answer,) = asked(
        [Question(path=str(files["gemma4-26b-a4b"]), context_tokens=32768, max_sequences=2)]
    )
    plan = planned(answer)
    assert [(cache.layers, cache.cells) for cache in plan.caches] == [(5, 32768), (25, 2560)]
    assert plan.scratch_bytes("output") == {"CPU": 2 * 262_144 * 4}
    assert "CPU" in plan.devices


def test_experts_that_stay_in_main_memory_are_part_of_a_plan(files: dict[str, Path]) -> None:
    """llama.cpp takes the table of a mixture's experts; on this build all is there anyway."""
    path = str(files["gemma4-26b-a4b"])
    with_table, without = asked(
        [
            Question(path=path, context_tokens=4096, max_sequences=1, host_expert_layers=layers)
            for layers in (30, 0)
        ]
    )
    assert planned(with_table).kv_bytes == planned(without).kv_bytes


def test_a_damaged_header_and_an_impossible_context_are_errors_of_their_question(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """The next question is answered as if nothing had been."""
    good = files["gemma4-e2b"]
    bad = tmp_path / "bad.gguf"
    with good.open("rb") as file:
        bad.write_bytes(file.read(2000))
    refused, answered, missing = asked(
        [
            Question(path=str(path), context_tokens=4096, max_sequences=1)
            for path in (bad, good, tmp_path / "none.gguf")
        ]
    )
    assert planned(answered).kv_bytes
    for answer, name in ((refused, "bad"), (missing, "none")):
        assert answer.error is not None
        assert answer.error.reason == "BAD_MODEL_FILE"
        assert name in answer.error.message
        assert answer.error.why


def test_the_process_ends_in_the_middle_of_its_work_when_the_input_does(
    files: dict[str, Path],
) -> None:
    """A daemon that dies leaves none behind, however much was still to do."""
    question = Question(path=str(files["gemma4-31b"]), context_tokens=131072, max_sequences=4)
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "gemd.worker.probe"],
        stdin=read_end,
        stdout=subprocess.DEVNULL,
    ) as process:
        os.close(read_end)
        os.write(write_end, (question.model_dump_json() + "\n").encode() * 200)
        os.close(write_end)
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads the limits of another process")
def test_a_lower_limit_of_the_users_stays(files: dict[str, Path]) -> None:
    """Nobody but root may raise it, and a probe that tried would not start."""
    question = Question(path=str(files["gemma4-e2b"]), context_tokens=4096, max_sequences=1)
    with subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -v 7000000; exec "$0" -P -m gemd.worker.probe', sys.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        _write(process.stdin, question.model_dump_json() + "\n")
        assert planned(Answer.model_validate_json(process.stdout.readline())).kv_bytes
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_AS)
        assert hard == 7_000_000 * 1024
        process.stdin.close()
