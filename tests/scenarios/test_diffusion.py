"""The whole way with a real block-diffusion model: gemctl, the client, the daemon, the worker."""

from __future__ import annotations

import functools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from gemd.client import (
    Canvas,
    Delta,
    Finished,
    Gap,
    GenerationOptions,
    InvalidRequestError,
    Sampling,
)
from tests.support.desktop import Desktop, desktop, wait_until
from tests.support.tiny_diffusion import ANSWERS, TINY, write_nvfp4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tiny_diffusion import Layout

STORY = "Tell me a story."


@pytest.fixture(scope="module", name="diffusing")
def _diffusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    """A daemon with nothing in its store."""
    with desktop(tmp_path_factory.mktemp("store")) as one:
        yield one


@pytest.fixture(scope="module", name="packed")
def _packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Layout], Path]:
    """The tiny model in one of the published layouts."""

    @functools.cache
    def packed(layout: Layout) -> Path:
        made = tmp_path_factory.mktemp(layout) / f"tiny-{layout}"
        write_nvfp4(TINY, made, layout)
        return made

    return packed


def options(path: Path, **fields: Any) -> GenerationOptions:
    """Of an answer by the model in that folder."""
    return GenerationOptions(model=str(path), **fields)


def test_gemctl_answers_from_a_folder(diffusing: Desktop) -> None:
    """The answer, and nothing else, on standard output; status says what answered."""
    done = diffusing.gemctl("run", "--model", str(TINY), "Hello")
    assert (done.returncode, done.stdout) == (0, f"{ANSWERS['Hello']}\n"), done.stderr
    status = json.loads(diffusing.gemctl("status", "--json").stdout)
    # Other tests of this daemon may have loaded other models.
    computed = {each["display_name"]: each["compute"] for each in status["models"]}
    assert computed[TINY.name] == "plain"


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(None, id="bf16"),
        # What the loaders make of these two is tested in the worker's own tests.
        pytest.param("modelopt", marks=pytest.mark.slow),
        pytest.param("compressed-tensors", marks=pytest.mark.slow),
    ],
)
def test_every_layout_answers_sixteen_of_sixteen(
    diffusing: Desktop, packed: Callable[[Layout], Path], layout: Layout | None
) -> None:
    """Over gRPC, all questions at once; one of them through gemctl."""
    path = TINY if layout is None else packed(layout)
    with diffusing.client() as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda asked: client.chat(asked, options(path)).answer(), ANSWERS)
        assert [answer.text for answer in answers] == list(ANSWERS.values())
    done = diffusing.gemctl("run", "--model", str(path), STORY)
    assert done.stdout == f"{ANSWERS[STORY]}\n", done.stderr


def test_steps_are_seen_and_candidates_come_together(diffusing: Desktop) -> None:
    """Canvas events between texts; one Finished for each candidate, with its steps."""
    with diffusing.client() as client:
        events = list(client.chat(STORY, options(TINY, candidates=3, watch_canvas=True)))
    pictures = [event for event in events if isinstance(event, Canvas)]
    assert {picture.candidate for picture in pictures} == {0, 1, 2}
    assert sum(picture.last for picture in pictures) == 9
    texts = ["", "", ""]
    for event in events:
        if isinstance(event, Delta):
            texts[event.candidate] += event.text
    assert texts == [ANSWERS[STORY]] * 3
    ends = [event for event in events if isinstance(event, Finished)]
    assert sorted(end.candidate for end in ends) == [0, 1, 2]
    assert all(end.usage.denoising_steps >= 3 for end in ends)


def test_gaps_are_filled_through_gemctl(diffusing: Desktop) -> None:
    """The output is the whole text."""
    done = diffusing.gemctl(
        "run",
        "--model",
        str(TINY),
        "--fill",
        "-",
        "What is the capital of Japan?",
        stdin="The capital of Japan is[[gap:2]].",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The capital of Japan is")
    assert done.stdout.endswith(".")
    with diffusing.client() as client:
        answer = client.chat(
            "What is the capital of Japan?",
            options(TINY, spans=["The capital of ", Gap(max_tokens=4), " is Tokyo."]),
        ).answer()
    assert answer.finished is not None
    [filled] = answer.finished.filled_spans
    assert answer.text == f"The capital of {filled} is Tokyo."


def test_a_cancelled_call_frees_its_place(diffusing: Desktop) -> None:
    """A canvas that would take all of its steps is dropped at a step boundary."""
    endless = options(
        TINY,
        watch_canvas=True,
        sampling=Sampling(temperature=8.0, ignore_eos=True, max_tokens=900),
    )
    with diffusing.client() as client:
        stream = client.chat("zebra", endless)
        for event in stream:
            if isinstance(event, Canvas):
                break
        stream.close()
        wait_until(lambda: client.status().running_requests == 0, what="the cancel")
        assert client.chat("Hello", options(TINY)).answer().text == ANSWERS["Hello"]


def test_a_damaged_checkpoint_is_refused_and_says_what_is_wrong(
    diffusing: Desktop, packed: Callable[[Layout], Path], tmp_path: Path
) -> None:
    """Before and after the daemon's own look at it; the daemon serves on."""
    folder = tmp_path / "truncated"
    shutil.copytree(packed("modelopt"), folder)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    done = diffusing.gemctl("run", "--model", str(folder), "Hello")
    assert done.returncode == 6
    assert shard.name in done.stderr
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "other" / "model.safetensors").write_bytes(b"\0" * 64)
    done = diffusing.gemctl("run", "--model", str(tmp_path / "other"), "Hello")
    assert done.returncode != 0
    assert "llama" in done.stderr
    assert diffusing.gemctl("run", "--model", str(TINY), "Hello").returncode == 0


def test_what_a_canvas_cannot_do_is_refused_by_its_field(diffusing: Desktop) -> None:
    """By the worker, in the API's own terms; the client sees which field."""
    with diffusing.client() as client:
        asked = options(TINY, sampling=Sampling(repeat_penalty=1.3))
        with pytest.raises(InvalidRequestError) as caught:
            client.chat("Hello", asked).answer()
    assert caught.value.reason == "UNSUPPORTED_INPUT"
    assert caught.value.metadata["field"] == "sampling.repeat_penalty"


def test_a_model_that_writes_token_by_token_fills_no_gaps(
    diffusing: Desktop, tmp_path: Path
) -> None:
    """The field is named, before anything is loaded."""
    done = diffusing.gemctl(
        "run", "--model", "smollm2-135m", "--fill", "-", "Fill it.", stdin="a [[gap]] b"
    )
    assert done.returncode == 2
    assert "spans" in done.stderr
