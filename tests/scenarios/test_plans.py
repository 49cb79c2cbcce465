"""What gemd would run on machines that are sold: each row of the founding design's hardware table.

The real catalogue and the shipped device files go in; `gemctl plan --on` of a real daemon says
what comes out. One daemon answers all of it.
"""

from __future__ import annotations

import json
import mmap
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import Catalog, HubSource
from tests.support.daemon_process import Home, home, serving
from tests.support.gemctl import Inside
from tests.support.gemma4_files import architecture_of, write_header_only
from tests.support.hub_server import SparseHub
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30
STRONG_ONLY = [("STRONG", True)]
PAIR = [("FAST", True), ("STRONG", True)]
DIFFUSION = "diffusiongemma-26b-a4b"
TINY = Path(__file__).parents[1] / "fixtures" / "tiny-diffusion-gemma"
TEXT_BYTES = 3_146_960
"""Of its tensors, those of the vision tower left out."""


@pytest.fixture(scope="module")
def user() -> Iterator[Home]:
    """A user whose daemon serves."""
    with home() as made, serving(made):
        yield made


def planned(user: Home, *arguments: str) -> dict[str, Any]:
    """The JSON document of `gemctl plan`."""
    done = Inside(user.environ(GEMD_AUTOSTART="0"))("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    for device in document["devices"]:
        check_bar(device)
    for model in document["models"]:
        for memory in model["memory"]:
            parts = sum(int(part["size_bytes"]) for part in memory["parts"])
            assert parts == int(memory["steady_bytes"]) <= int(memory["peak_bytes"])
    return document


def check_bar(device: dict[str, Any]) -> None:
    """Parts, others, margin and free are the capacity, to the byte."""
    total = sum(int(part["size_bytes"]) for part in device.get("parts", []))
    total += sum(int(device.get(key, 0)) for key in ("others_bytes", "margin_bytes", "free_bytes"))
    assert total == int(device["device"]["memory"]["capacity_bytes"])


def tiers(document: dict[str, Any]) -> list[tuple[str, bool]]:
    """Role and warmth of each model."""
    return [
        (model["role"].removeprefix("ROLE_"), model.get("warm", False))
        for model in document["models"]
    ]


def codes(document: dict[str, Any]) -> set[str]:
    """Of the reasons of the plan and of its models."""
    found = {reason["code"] for reason in document["reasons"]}
    for model in document["models"]:
        found |= {reason["code"] for reason in model["reasons"]}
    return found


def verdicts(document: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The code of the reason by model and variant."""
    return {
        (found["model"].removeprefix("models/"), found["variant"]): found["reason"]["code"]
        for found in document["verdicts"]
    }


ROWS: list[tuple[str, list[tuple[str, bool]], list[tuple[str, str]], set[str]]] = [
    (
        "rtx-4090-24gb",
        PAIR,
        [(DIFFUSION, "GPU"), ("gemma4-26b-a4b", "SPLIT")],
        {"PAIR_WARM", "FAST_TIER", "BEST_QUALITY", "EXPERTS_IN_RAM"},
    ),
    ("rtx-4080-16gb", STRONG_ONLY, [("gemma4-26b-a4b", "GPU")], {"FAST_TOO_LARGE", "CACHE_8_BIT"}),
    (
        "rtx-5090-32gb",
        PAIR,
        [(DIFFUSION, "GPU"), ("gemma4-26b-a4b", "SPLIT")],
        {"PAIR_WARM", "FAST_TIER", "BEST_QUALITY"},
    ),
    ("m4-max-48gb", STRONG_ONLY, [("gemma4-31b", "GPU")], {"FAST_UNSUPPORTED", "BEST_QUALITY"}),
    ("m4-pro-24gb", STRONG_ONLY, [("gemma4-26b-a4b", "GPU")], {"FAST_UNSUPPORTED"}),
    ("rx-7900-xtx-24gb", STRONG_ONLY, [("gemma4-31b", "GPU")], {"FAST_UNSUPPORTED"}),
    ("cpu-8gb", STRONG_ONLY, [("gemma4-e2b", "CPU")], {"FAST_UNSUPPORTED", "BEST_QUALITY"}),
    ("cpu-16gb", STRONG_ONLY, [("gemma4-e2b", "CPU")], {"FAST_UNSUPPORTED"}),
    ("cpu-64gb", STRONG_ONLY, [("gemma4-26b-a4b", "CPU")], {"FAST_UNSUPPORTED"}),
    ("laptop-igpu", STRONG_ONLY, [("gemma4-e2b", "CPU")], {"FAST_UNSUPPORTED"}),
]


@pytest.mark.parametrize("device,roles,models,expected", ROWS, ids=[r[0] for r in ROWS])
def test_each_machine_gets_what_suits_it(
    user: Home,
    device: str,
    roles: list[tuple[str, bool]],
    models: list[tuple[str, str]],
    expected: set[str],
) -> None:
    """Tiers, models, where they lie, and the reasons, as the founding design demands."""
    document = planned(user, "--on", device)
    assert document["device_profile"] == device
    assert tiers(document) == roles
    assert [
        (model["model"].removeprefix("models/"), model["placement"].removeprefix("PLACEMENT_"))
        for model in document["models"]
    ] == models
    assert expected <= codes(document)
    assert not document.get("needs_cpu_consent", False)
    for model in document["models"]:
        # QAT Q4_0 before Q4_K_M, and why.
        if model["role"] == "ROLE_STRONG":
            assert (model["variant"], model["quantization"]) == ("qat-q4_0", "Q4_0")
            assert "VARIANT" in {reason["code"] for reason in model["reasons"]}
            assert model["speed"]["decode_tokens_per_second"] >= 15


def test_diffusion_takes_what_was_published_on_a_4090(user: Home) -> None:
    """17.7 GB of weights, 19 to 20 GB at 8 K in all, and the rest is not enough for two."""
    document = planned(user, "--on", "rtx-4090-24gb")
    [fast] = [model for model in document["models"] if model["role"] == "ROLE_FAST"]
    [memory] = [one for one in fast["memory"] if one["device"] == "devices/gpu0"]
    assert 19e9 <= int(memory["steady_bytes"]) <= 20e9
    assert fast["context_length"] == 8192
    found = verdicts(document)
    assert found["gemma4-31b", "qat-q4_0"] == "NO_ROOM_BESIDE"
    assert found["gemma4-12b", "qat-q4_0"] == "LOWER_QUALITY"
    assert found[DIFFUSION, "bf16"] == "TOO_LARGE"


def test_a_4090_with_little_main_memory_keeps_a_verifier_beside(user: Home, tmp_path: Path) -> None:
    """The experts find no room in 16 GB, so the tiers take turns and the swap has its price."""
    document = planned(user, "--on", str(changed(tmp_path, "rtx-4090-24gb", ram="16GiB")))
    assert tiers(document) == [("FAST", True), ("VERIFIER", True), ("STRONG", False)]
    assert [model["model"] for model in document["models"]] == [
        f"models/{DIFFUSION}",
        "models/gemma4-e4b",
        "models/gemma4-31b",
    ]
    assert "ONE_TIER_AT_A_TIME" in codes(document)
    assert float(document["swap_duration"].removesuffix("s")) > 5


def test_a_5090_with_little_main_memory_has_12b_beside(user: Home, tmp_path: Path) -> None:
    """Both tiers warm, the strong one whole on the GPU."""
    document = planned(user, "--on", str(changed(tmp_path, "rtx-5090-32gb", ram="12GiB")))
    assert tiers(document) == PAIR
    strong = document["models"][1]
    assert (strong["model"], strong["placement"]) == ("models/gemma4-12b", "PLACEMENT_GPU")


def test_a_16_gb_card_fits_12b_with_room(user: Home) -> None:
    """Named, it lies whole on the GPU with its cache in 16 bits and 8 requests at once."""
    document = planned(user, "gemma4-12b", "--on", "rtx-4080-16gb")
    assert tiers(document) == STRONG_ONLY
    assert {"CACHE_8_BIT", "LAYERS_IN_RAM"}.isdisjoint(codes(document))
    assert set(verdicts(document)) == {
        ("gemma4-12b", variant) for variant in ("qat-q4_0", "q4_k_m", "q8_0")
    }


def test_layers_on_both_sides_are_all_layers(user: Home) -> None:
    """What is said to lie on the GPU, and what the reason says of main memory."""
    [model] = planned(user, "gemma4-31b", "--on", "rtx-4080-16gb")["models"]
    [split] = [one for one in model["reasons"] if one["code"] == "LAYERS_IN_RAM"]
    assert model["gpu_layers"] + int(split["metadata"]["layers"]) == model["total_layers"]


def test_a_named_choice_means_what_the_machine_runs_well(user: Home) -> None:
    """`gemma4-27b` is 31B, 26B-A4B or E2B, and the plan says that it is a choice."""
    found = {}
    for device in ("m4-max-48gb", "rtx-4080-16gb", "cpu-8gb"):
        document = planned(user, "gemma4-27b", "--on", device)
        found[device] = document["models"][0]["model"]
        assert "NAMED_CHOICE" in codes(document)
    assert found == {
        "m4-max-48gb": "models/gemma4-31b",
        "rtx-4080-16gb": "models/gemma4-26b-a4b",
        "cpu-8gb": "models/gemma4-e2b",
    }


def test_a_budget_is_a_ceiling(user: Home) -> None:
    """8 GiB of a 4090: no fast tier, and no model takes more."""
    document = planned(user, "--on", "rtx-4090-24gb", "--budget", "8GiB")
    assert tiers(document) == STRONG_ONLY
    [gpu] = [one for one in document["devices"] if one["device"]["id"] == "gpu0"]
    assert sum(int(part["size_bytes"]) for part in gpu["parts"]) <= 8 * GIB
    assert int(gpu["device"]["memory"]["budget_bytes"]) == 8 * GIB


def test_a_longer_context_takes_more(user: Home) -> None:
    """128 K of it, and the plan is for so many tokens."""
    size = {}
    for context in (16_384, 131_072):
        document = planned(user, "gemma4-12b", "--on", "rtx-5090-32gb", "--context", str(context))
        [model] = document["models"]
        assert model["context_length"] == context
        parts = {part["kind"]: int(part["size_bytes"]) for part in model["memory"][0]["parts"]}
        size[context] = parts["KIND_KV_CACHE"]
    # 16 KiB for each token more in 8 layers that attend to everything (f16).
    assert size[131_072] - size[16_384] == (131_072 - 16_384) * 16 * 1024


def test_other_programs_count_unless_told_otherwise(user: Home, tmp_path: Path) -> None:
    """6 GiB that a game holds leave no room for the pair; --idle plans as if it had ended."""
    file = str(changed(tmp_path, "rtx-4090-24gb", gpu_others="6GiB"))
    assert tiers(planned(user, "--on", file)) == STRONG_ONLY
    assert tiers(planned(user, "--on", file, "--idle")) == PAIR


def test_a_gpu_that_is_too_small_needs_consent(user: Home, tmp_path: Path) -> None:
    """The processor would do, the plan says so, and --cpu allows it."""
    file = tmp_path / "tiny.toml"
    file.write_text(
        '[[gpu]]\nname = "Tiny"\nvendor = "nvidia"\ncapacity = "700MiB"\n'
        'compute_capability = "6.1"\nbandwidth = "40GB"\ndrives_display = false\n'
        '[ram]\ncapacity = "16GiB"\nbandwidth = "50GB"\n',
        encoding="utf-8",
    )
    document = planned(user, "--on", str(file))
    assert document["needs_cpu_consent"]
    assert "CPU_CONSENT_NEEDED" in codes(document)
    allowed = planned(user, "--on", str(file), "--cpu")
    assert not allowed.get("needs_cpu_consent", False)
    assert "CPU_CONSENTED" in codes(allowed)


def test_a_model_that_no_device_here_can_run_is_not_called_too_large(user: Home) -> None:
    """On this machine nothing of it can be placed, whatever room there is."""
    document = planned(user, DIFFUSION)
    assert tiers(document) == []
    assert codes(document) == {"UNSUPPORTED_HERE"}
    assert set(verdicts(document).values()) == {"UNSUPPORTED_HERE"}


def test_this_machine_is_planned_for_too(user: Home) -> None:
    """By its real memory; what needs a GPU that is not here is no part of it."""
    document = planned(user)
    assert document.get("device_profile", "") == ""
    assert document["devices"]
    assert verdicts(document)[DIFFUSION, "nvfp4-nvidia"] == "UNSUPPORTED_HERE"


def test_a_checkpoint_on_disk_is_planned_by_its_own_files(user: Home) -> None:
    """To the byte of its headers, on a GPU or on a processor; a damaged one has no size."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(shutil.copytree(TINY, Path(folder) / "my-model"))
        for where, expected in (("--on", "GPU"), ("", "CPU")):
            on = ("--on", "rtx-4090-24gb") if where else ()
            [model] = planned(user, str(own), *on)["models"]
            assert model["placement"] == f"PLACEMENT_{expected}"
            weights = sum(
                int(part["size_bytes"])
                for memory in model["memory"]
                for part in memory["parts"]
                if part["kind"] == "KIND_WEIGHTS"
            )
            assert weights == TEXT_BYTES
            assert model["quantization"] == "BF16"
            assert model["role"] == "ROLE_FAST"
            assert int(model.get("download_bytes", 0)) == 0
        with (own / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
        done = Inside(user.environ(GEMD_AUTOSTART="0"))("plan", str(own))
        assert done.returncode == 6
        assert "model.safetensors is not a usable safetensors file" in done.stderr


def test_a_model_that_is_not_here_is_looked_at_before_it_is_planned(tmp_path: Path) -> None:
    """Its header is read by ranges, once; a general plan asks nobody."""
    file = tmp_path / "model.gguf"
    claimed = write_header_only(file, architecture_of("gemma4-12b"), "gemma4-12b")
    source = Catalog.load(PROFILES).resolve("gemma4-12b").variants[0].sources[0]
    assert isinstance(source, HubSource)
    with (
        SparseHub() as hub,
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        hub.add(source.repository, source.file, content)  # type: ignore[arg-type]  # read as bytes
        with home() as made, serving(made, GEMD_HUB_ENDPOINT=hub.url):
            planned(made)
            assert not hub.requests
            arguments = ("gemma4-12b", "--on", "h100-80gb")
            [model] = planned(made, *arguments)["models"]
            read = hub.body_bytes
            # What the hub has is no Q4_0 but BF16: the header counts, and not the profile.
            weights = sum(
                int(part["size_bytes"])
                for memory in model["memory"]
                for part in memory["parts"]
                if part["kind"] == "KIND_WEIGHTS"
            )
            assert weights > 0.99 * claimed
            assert 0 < read <= 20_000_000
            assert planned(made, *arguments)["models"] == [model]
            assert hub.body_bytes == read
        with home() as made, serving(made, GEMD_HUB_ENDPOINT="http://127.0.0.1:1"):
            document = planned(made, *arguments)
            assert "HEADER_NOT_READ" in codes(document)
            assert document["models"][0]["quantization"] == "Q4_0"


@pytest.mark.parametrize(
    "arguments,code,text",
    [
        (("--on", "rtx4090"), 4, "gemctl plan --on rtx-4090-24gb"),
        (("--on", "/nowhere/at-all.toml"), 4, "there is no device file /nowhere/at-all.toml"),
        (("gemma5",), 4, "there is no model 'gemma5'"),
        (("gemma4-12b", "--variant", "q9"), 2, "it has qat-q4_0"),
        (("--variant", "q4_k_m"), 2, "needs the MODEL"),
        ((" ",), 2, "the model's name is empty"),
        (("--context", "0"), 2, "no room"),
        (("--budget", "12"), 2, "a number and a unit"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_would_do(
    user: Home, arguments: tuple[str, ...], code: int, text: str
) -> None:
    """A wrong name gets the near ones, a wrong number what is allowed."""
    done = Inside(user.environ(GEMD_AUTOSTART="0"))("plan", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_the_bars_of_a_terminal_are_of_one_length(user: Home) -> None:
    """Each device has one; every reason of the plan is a line of its own."""
    done = Inside(user.environ(GEMD_AUTOSTART="0"))("plan", "--on", "rtx-4090-24gb", "--all")
    bars = [line for line in done.stdout.splitlines() if line.startswith(("gpu0 ", "cpu "))]
    assert len({line.index("]") - line.index("[") for line in bars}) == 1
    assert len(bars) == 2
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "why: both tiers fit together and stay warm" in done.stdout
    assert "not: gemma4-31b qat-q4_0" in done.stdout


def changed(folder: Path, device: str, *, ram: str = "", gpu_others: str = "") -> Path:
    """A shipped device file with another size of RAM, or other programs on its GPU."""
    from gemd.paths import data_dir  # noqa: PLC0415 -- only here

    text = (data_dir("profiles") / "devices" / f"{device}.toml").read_text(encoding="utf-8")
    before, _, after = text.partition("[ram]")
    if ram:
        lines = [
            f'capacity = "{ram}"' if line.startswith("capacity") else line
            for line in after.splitlines()
        ]
        after = "\n".join(lines)
    if gpu_others:
        before = before.replace("[[gpu]]", f'[[gpu]]\nothers = "{gpu_others}"')
    file = folder / "changed.toml"
    file.write_text(f"{before}[ram]{after}\n", encoding="utf-8")
    return file
