"""The API's files, their committed descriptor and their committed stubs belong together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from tests.support.models import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
STUBS = ROOT / "gemd" / "v1"
DESCRIPTOR = PROTO / "gemd-v1.binpb"
BREAKS = 100
"""`buf`'s exit code for «the check ran and found something»."""


def run(
    *command: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command at the root of the repository and returns what it said."""
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )


def buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the `buf` of this environment."""
    beside = Path(sys.executable).with_name("buf")
    return run(beside if beside.exists() else "buf", *arguments)


def load_image(path: Path) -> list[FileDescriptorProto]:
    """The gemd files of a descriptor image, without those they import from protobuf itself."""
    image = FileDescriptorSet.FromString(path.read_bytes())
    return [file for file in image.file if file.package == "gemd.v1"]


FILES = load_image(DESCRIPTOR)
METHODS = [
    (file, service_at, method_at)
    for file in FILES
    for service_at, service in enumerate(file.service)
    for method_at in range(len(service.method))
]


def messages(within: Sequence[DescriptorProto]) -> Iterator[DescriptorProto]:
    """All messages, nested ones included, without the entries of maps."""
    for message in within:
        if not message.options.map_entry:
            yield message
            yield from messages(message.nested_type)


MESSAGES = {message.name: message for file in FILES for message in file.message_type}


@pytest.fixture
def proto_copy(tmp_path: Path) -> Path:
    """The API's files in a place where they may be changed."""
    return Path(shutil.copytree(PROTO, tmp_path / "proto"))


def renumber(proto: Path) -> None:
    """Gives one field another number, as a careless edit would."""
    file = proto / "gemd" / "v1" / "lease.proto"
    before = file.read_text(encoding="utf-8")
    after = before.replace("string model = 2;", "string model = 22;")
    assert after != before
    file.write_text(after, encoding="utf-8")


def test_files_pass_the_linter() -> None:
    """`buf lint` has nothing to say: names, packages, and a comment on every element."""
    done = buf("lint", PROTO)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_files_are_formatted() -> None:
    """`buf format` would change nothing."""
    done = buf("format", PROTO, "--diff", "--exit-code")

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_files_keep_the_promises_of_the_committed_descriptor() -> None:
    """No change since the descriptor was committed breaks a client."""
    done = buf("breaking", PROTO, "--against", DESCRIPTOR)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_renumbered_field_breaks_clients(proto_copy: Path) -> None:
    """The check against the descriptor is alive: it names the field that got another number."""
    renumber(proto_copy)

    done = buf("breaking", proto_copy, "--against", DESCRIPTOR)

    assert done.returncode == BREAKS
    assert 'Previously present field "2" with name "model" on message "Lease"' in done.stdout


def test_generating_refuses_a_break(proto_copy: Path) -> None:
    """A breaking change does not get into the descriptor by regenerating it."""
    renumber(proto_copy)

    done = run(sys.executable, proto_copy / "generate.py")

    assert done.returncode == 1
    assert "this would break clients" in done.stderr
    assert DESCRIPTOR.read_bytes() == (proto_copy / DESCRIPTOR.name).read_bytes()
    assert not (proto_copy.parent / "gemd").exists()


# The first run on a machine builds the generator's environment.
@pytest.mark.timeout(300)
def test_committed_stubs_and_descriptor_are_those_of_the_files(tmp_path: Path) -> None:
    """Regenerating makes no difference."""
    # Kept between runs, beside the models: the test's own home is new in every run.
    environment = () if "GEMD_CODEGEN_PYTHON" in os.environ else ("--env", CACHE / "codegen")
    done = run(sys.executable, PROTO / "generate.py", "--out", tmp_path, *environment)
    assert done.returncode == 0, done.stderr

    made = {path.name: path.read_text() for path in (tmp_path / "gemd" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in STUBS.glob("*_pb2*.py*")}

    assert sorted(made) == sorted(committed)
    assert [name for name in sorted(made) if made[name] != committed[name]] == []
    assert load_image(tmp_path / "proto" / DESCRIPTOR.name) == FILES


def test_generating_without_its_generators_says_how_to_get_them(tmp_path: Path) -> None:
    """A Python without the pinned generators is named with what it lacks."""
    env = {"GEMD_CODEGEN_PYTHON": sys.executable + "-missing"}

    done = run(sys.executable, PROTO / "generate.py", "--out", tmp_path, env=env)

    assert done.returncode == 1
    assert "has no generators, and gemd's stubs need" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_file_has_its_stubs() -> None:
    """Each `.proto` file has messages, services and the types of both in `gemd/v1`."""
    expected = {
        f"{path.stem}_{kind}"
        for path in (PROTO / "gemd" / "v1").glob("*.proto")
        for kind in ("pb2.py", "pb2.pyi", "pb2_grpc.py", "pb2_grpc.pyi")
    }

    assert expected == {path.name for path in STUBS.glob("*_pb2*")}


def test_stubs_import_without_a_warning() -> None:
    """All stubs can be imported where warnings are errors."""
    modules = [f"gemd.v1.{path.stem}" for path in sorted(STUBS.glob("*_pb2*.py"))]

    done = run(sys.executable, "-W", "error", "-c", f"import {', '.join(modules)}")

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    "file,service_at,method_at",
    METHODS,
    ids=[f"{f.service[s].name}.{f.service[s].method[m].name}" for f, s, m in METHODS],
)
def test_every_rpc_is_documented(
    file: FileDescriptorProto, service_at: int, method_at: int
) -> None:
    """Each RPC carries a comment: it is the documentation that clients are generated with."""
    path = [
        FileDescriptorProto.SERVICE_FIELD_NUMBER,
        service_at,
        2,  # ServiceDescriptorProto.method
        method_at,
    ]

    comments = [
        location.leading_comments
        for location in file.source_code_info.location
        if list(location.path) == path
    ]

    assert len(comments) == 1
    assert comments[0].strip()


def test_the_api_has_the_services_of_the_design() -> None:
    """Each service lies in a file of its own and has the RPCs that clients rely on."""
    expected = {
        "daemon_service": {
            "DaemonService": "GetInfo GetStatus ListDevices Diagnose Yield Plan Explain "
            "WatchEvents Reload Drain"
        },
        "generation_service": {
            "GenerationService": "Generate Embed CountTokens Score SendFeedback"
        },
        "lease_service": {"LeaseService": "CreateLease RenewLease ReleaseLease ListLeases"},
        "model_service": {"ModelService": "ListModels GetModel LoadModel UnloadModel PinModel"},
        "operation_service": {
            "OperationService": "GetOperation ListOperations CancelOperation WatchOperation"
        },
        "store_service": {
            "StoreService": "PullModel QuantizeModel VerifyModel DeleteModel PruneStore"
        },
    }

    actual = {
        Path(file.name).stem: {s.name: " ".join(m.name for m in s.method) for s in file.service}
        for file in FILES
        if file.service
    }

    assert expected == actual


def test_every_sampling_field_tells_zero_from_unset() -> None:
    """0 means 0: only repeated fields, whose emptiness is their default, have no presence."""
    without = {
        field.name
        for field in MESSAGES["Sampling"].field
        if not field.proto3_optional and field.label != FieldDescriptorProto.LABEL_REPEATED
    }

    assert set() == without


def test_every_list_comes_in_pages() -> None:
    """AIP-158 from the outset: adding pages later would break clients."""
    lists = {
        method.name
        for file in FILES
        for service in file.service
        for method in service.method
        if method.name.startswith("List")
    } | {"Explain"}

    unpaged = {
        name
        for name in lists
        if not {"page_size", "page_token"} <= {f.name for f in MESSAGES[f"{name}Request"].field}
        or "next_page_token" not in {f.name for f in MESSAGES[f"{name}Response"].field}
    }

    assert set() == unpaged


def test_sizes_are_whole_bytes() -> None:
    """Every `…_bytes` is a uint64 that says its unit, and nothing that is a size is a float."""
    others = [
        f"{message.name}.{field.name}"
        for file in FILES
        for message in messages(file.message_type)
        for field in message.field
        if field.name.endswith("_bytes") and field.type != FieldDescriptorProto.TYPE_UINT64
    ]

    assert others == []
