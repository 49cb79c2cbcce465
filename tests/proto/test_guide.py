"""What the API guide and the examples in other languages say is what the API has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gemd import errors
from gemd.v1 import (
    error_pb2,
    event_pb2,
    generation_pb2,
    generation_service_pb2,
    lease_service_pb2,
    model_pb2,
    model_service_pb2,
    operation_service_pb2,
    store_service_pb2,
)

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
GUIDE = (PROTO / "README.md").read_text(encoding="utf-8")
TYPESCRIPT = PROTO / "examples" / "typescript"
NEOVIM = ROOT / "service" / "editors" / "nvim"
PAGES = [
    PROTO / "README.md",
    TYPESCRIPT / "README.md",
    ROOT / "service" / "editors" / "README.md",
]
API = [
    module.DESCRIPTOR
    for module in (
        error_pb2,
        event_pb2,
        generation_pb2,
        generation_service_pb2,
        lease_service_pb2,
        model_pb2,
        model_service_pb2,
        operation_service_pb2,
        store_service_pb2,
    )
]
EVENTS = [field.name for field in generation_service_pb2.GenerateResponse.DESCRIPTOR.fields]


def domain_errors(base: type[errors.GemdError] = errors.GemdError) -> list[type[errors.GemdError]]:
    """All that go over the wire."""
    found = [each for child in base.__subclasses__() for each in (child, *domain_errors(child))]
    return [each for each in found if each is not errors.ConfigError]


def rows(heading: str) -> list[list[str]]:
    """The cells of the one table of a section, without its head."""
    section = GUIDE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


def block(language: str, number: int = 0) -> str:
    """A code block of the guide."""
    return str(re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[number])


def words_of_enums() -> set[str]:
    """The values of all enums, nested ones too."""
    found: set[str] = set()
    messages = [message for file in API for message in file.message_types_by_name.values()]
    while messages:
        message = messages.pop()
        found |= set(message.enum_values_by_name)
        messages += message.nested_types
    for file in API:
        for enum in file.enum_types_by_name.values():
            found |= set(enum.values_by_name)
    return found


def test_the_table_of_errors_is_complete() -> None:
    """Every reason with its code; the crash has two."""
    documented = {reason: code for reason, code, _ in rows("Errors")}
    expected = {each.reason: each.code.name for each in domain_errors()}
    assert documented.pop("ENGINE_CRASHED") == "UNAVAILABLE, ABORTED"
    assert expected.pop("ENGINE_CRASHED") == "UNAVAILABLE"
    assert documented == expected


def test_the_table_of_events_is_complete() -> None:
    """Every kind, and no other."""
    assert sorted(name for name, *_ in rows("The events, in order")) == sorted(EVENTS)


def test_methods_that_are_named_exist() -> None:
    """Services, and what stands alone in a sentence with a capital in its middle."""
    methods = {
        method.name
        for file in API
        for service in file.services_by_name.values()
        for method in service.methods
    }
    prose = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    verbs = "Pull|Quantize|Verify|Delete|Prune|Watch|Load|Count"
    named = set(re.findall(rf"`((?:{verbs})[A-Z]\w+)`", prose))
    assert named
    assert named <= methods


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To a file or a folder of the repository."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_example_in_python_has_its_link() -> None:
    """And the README leads to the guide."""
    for file in (PROTO / "examples" / "python").glob("*.py"):
        assert f"(examples/python/{file.name})" in GUIDE
    assert "(proto/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        *(file.read_text(encoding="utf-8") for file in sorted(TYPESCRIPT.glob("src/*.ts"))),
        *(file.read_text(encoding="utf-8") for file in sorted(NEOVIM.glob("lua/gemd/*.lua"))),
        block("go"),
    ],
    ids=[
        *(file.name for file in sorted(TYPESCRIPT.glob("src/*.ts"))),
        *(file.name for file in sorted(NEOVIM.glob("lua/gemd/*.lua"))),
        "go",
    ],
)
def test_values_of_enums_that_are_named_exist(text: str) -> None:
    """A value that is renamed would be met by nobody there, in silence."""
    named = set(re.findall(r"\b(?:RESOLUTION|ROLE|FINISH_REASON)_[A-Z_]+\b", text))
    assert named <= words_of_enums()


def test_events_of_the_other_languages_exist() -> None:
    """Those that their programs ask for."""
    lua = (NEOVIM / "lua" / "gemd" / "answer.lua").read_text(encoding="utf-8")
    asked = set(re.findall(r'kind == "(\w+)"', lua))
    asked |= {name.lower() for name in re.findall(r"GenerateResponse_(\w+)", block("go"))}
    asked |= {name.lower() for name in re.findall(r"Event::(\w+)\(", block("rust", 1))}
    main = (TYPESCRIPT / "src" / "main.ts").read_text(encoding="utf-8")
    asked |= set(re.findall(r"\bevent\.(\w+)", main))
    assert len(asked) >= 6
    assert asked <= set(EVENTS)


def test_types_that_typescript_imports_are_messages() -> None:
    """Its generated folder has one file for each."""
    known = {name for file in API for name in file.message_types_by_name}
    known |= {name for file in API for name in file.services_by_name}
    for file in TYPESCRIPT.glob("src/*.ts"):
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"generated/gemd/v1/(\w+)\.js", text)) <= known


def test_the_lock_file_belongs_to_the_package_and_names_no_host() -> None:
    """`npm ci` refuses one that does not; where packages come from is the user's to say."""
    package = json.loads((TYPESCRIPT / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_text(encoding="utf-8"))
    root, *others = lock["packages"].values()
    assert others
    for key in ("dependencies", "devDependencies"):
        assert root[key] == package[key]
    assert all(each["integrity"].startswith("sha512-") for each in others)
    assert [each["resolved"] for each in others if "resolved" in each] == []
    assert {each["license"] for each in others} <= {"Apache-2.0", "MIT", "ISC", "BSD-3-Clause"}
