"""Imports point down only: every module of gemd is parsed, none is taken on trust."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gemd"

LEAVES = {"errors"}
SETTINGS = LEAVES | {"config", "paths", "quantities"}
BOTTOM = SETTINGS | {"catalog", "footprint", "hardware", "threads", "wire"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "quantities": set(),
    "config": LEAVES | {"quantities"},
    "paths": LEAVES | {"config"},
    "logs": LEAVES | {"config", "paths"},
    "notify": {"quantities"},
    "wire": LEAVES,
    "threads": set(),
    "cores": set(),
    "metrics": LEAVES,
    "hardware": LEAVES | {"quantities", "threads"},
    "footprint": LEAVES,
    "catalog": SETTINGS | {"hardware", "footprint"},
    "store": BOTTOM,
    "engine": BOTTOM,
    "doctor": BOTTOM | {"store", "engine"},
    "residency": BOTTOM | {"store", "engine"},
    "routing": BOTTOM | {"store", "engine", "residency"},
    "rpc": BOTTOM | {"store", "engine", "residency", "routing", "logs", "doctor", "metrics", "v1"},
    "daemon": BOTTOM
    | {"store", "engine", "residency", "routing", "logs", "notify", "rpc", "cores"},
    "worker": {"wire", "footprint", "errors", "quantities", "cores"},
    "client": SETTINGS | {"v1"},
    "cli": SETTINGS | {"client", "hardware", "catalog", "engine", "doctor"},
    "v1": set(),
    "__init__": set(),
    "__main__": {"daemon"},
}
"""What each part of gemd may import of the others; itself it may."""

ENGINES = {
    "diffusers",
    "llama_cpp",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
    "xllamacpp",
}

BY_NAME = {"gemd.cli.app", "gemd.client", "gemd.worker.host"}
"""Modules that import others by a name that is put together while they run."""

HIDDEN = {"__import__", "exec", "eval", "exec_module", "load_module", "run_module", "run_path"}
"""Calls that import what no parser sees."""


def _part(module: str) -> str:
    """`gemd.rpc.status` belongs to `rpc`; `gemd` itself is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def _modules() -> dict[str, Path]:
    """Every module of gemd by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


@cache
def _imports(module: str) -> frozenset[str]:
    """Dotted names that the module imports, anywhere in it, for types too."""
    path = _modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(_from(node, package))
        elif isinstance(node, ast.Call) and _called(node) == "import_module":
            names.update(_named(node, module))
    return frozenset(names)


def _called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _named(call: ast.Call, module: str) -> set[str]:
    """What `import_module` may import: its text, all that begins so, or any text of the module.

    `import_module(f"gemd.cli.{name}")` counts as importing everything in `gemd.cli`, and
    `import_module(name)` as importing every module that the file's texts name.
    """
    argument = call.args[0]
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    beginning = _beginning(argument, module)
    if beginning:
        found = {name for name in _modules() if name.startswith(beginning)}
        assert found, f"{module} imports {beginning}…, and there is no such module"
        return found
    source = ast.parse(_modules()[module].read_text(encoding="utf-8"))
    texts = {
        node.value.partition(":")[0]
        for node in ast.walk(source)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found = {text for text in texts if text in _modules() or text in ENGINES}
    assert found, f"{module} imports by a name, and nothing says which ones there are"
    return found


def _beginning(text: ast.expr, module: str) -> str:
    """The part of an f-string that is known beforehand."""
    known = ""
    for part in text.values if isinstance(text, ast.JoinedStr) else []:
        if isinstance(part, ast.Constant):
            known += str(part.value)
        elif (
            isinstance(part, ast.FormattedValue)
            and isinstance(part.value, ast.Name)
            and part.value.id == "__name__"
        ):
            known += module
        else:
            break
    return known


def _from(node: ast.ImportFrom, package: str) -> set[str]:
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, base] if base else above)
    # `from gemd import errors` names a module, `from gemd.errors import X` does not.
    inner = {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in inner if name in _modules()} or {base}


def _reach(module: str) -> dict[str, str]:
    """Every module that importing this one can lead to, and one that imports it."""
    reached = {module: ""}
    open_ends = [module]
    while open_ends:
        current = open_ends.pop()
        for name in _imports(current):
            for ancestor in _with_ancestors(name):
                if ancestor not in reached:
                    reached[ancestor] = current
                    if ancestor in _modules():
                        open_ends.append(ancestor)
    return reached


def _with_ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def test_every_part_exists_and_has_its_row() -> None:
    """A part that is missing or new fails here, so that no rule below holds for nothing."""
    assert {_part(module) for module in _modules()} == ALLOWED.keys() - (
        set() if (PACKAGE / "__main__.py").exists() else {"__main__"}
    )
    for part in ALLOWED.keys() - {"__main__", "__init__"}:
        code = [m for m in _modules() if _part(m) == part and _modules()[m].stat().st_size]
        assert code, f"gemd.{part} is empty"


def test_the_parser_sees_every_form_of_import() -> None:
    """This very project uses each: plain, from a module, of a module, inside a function."""
    assert "gemd.errors" in _imports("gemd.paths")
    assert any("gemd.wire" in _imports(module) for module in _modules())
    assert "pynvml" in _imports("gemd.hardware.nvidia")
    assert "gemd.worker.llama" in _modules()
    relative = ast.parse("from ..engine import x").body[0]
    assert isinstance(relative, ast.ImportFrom)
    assert _from(relative, "gemd.rpc") == {"gemd.engine"}


def test_imports_by_name_are_seen() -> None:
    """A name that is put together counts as every module it may mean; nothing else hides one."""
    by_name, hidden = set(), set()
    calls = re.compile("|".join(("import_module", *HIDDEN)))
    for module, path in _modules().items():
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if calls.search(source) else ():
            if isinstance(node, ast.Call) and _called(node) == "import_module":
                by_name.add(module)
            # Without an argument it is a method: torch's `eval` ends training.
            if isinstance(node, ast.Call) and node.args and _called(node) in HIDDEN:
                hidden.add(module)
    assert by_name == BY_NAME
    assert not hidden
    assert {"gemd.cli.run", "gemd.cli.daemon"} <= _imports("gemd.cli.app")
    assert {"gemd.client.sync", "gemd.client.aio"} <= _imports("gemd.client")
    assert {"gemd.worker.llama", "gemd.worker.scripted"} <= _imports("gemd.worker.host")


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_down(part: str) -> None:
    """Each part imports only what its row allows."""
    wrong = [
        f"{module} imports {name}"
        for module in _modules()
        if _part(module) == part
        for name in _imports(module)
        if name.split(".")[0] == "gemd" and _part(name) not in ALLOWED[part] | {part, "__init__"}
    ]
    assert not wrong


def test_nobody_imports_the_worker() -> None:
    """It is started as a program."""
    importers = [
        module
        for module in _modules()
        if _part(module) != "worker" and any(_part(name) == "worker" for name in _gemd(module))
    ]
    assert not importers


def test_gemctl_installs_engines_and_starts_none() -> None:
    """Of the engine room it knows the builds, which it installs without a daemon."""
    known = {name for m in _modules() if _part(m) == "cli" for name in _gemd(m)}
    rooms = {name for name in known if _part(name) == "engine"}
    assert rooms
    assert all(name.startswith("gemd.engine.builds") for name in rooms)


def test_the_stubs_have_two_users() -> None:
    """Nothing but rpc and client knows the wire format of the API."""
    users = {_part(m) for m in _modules() if any(_part(name) == "v1" for name in _gemd(m))}
    assert users - {"v1"} == {"rpc", "client"}


def _gemd(module: str) -> set[str]:
    return {name for name in _imports(module) if name.split(".")[0] == "gemd"}


def test_no_way_leads_from_the_daemon_to_an_engine_library() -> None:
    """Not even through an import inside a function."""
    reached = _reach("gemd.daemon")
    assert "gemd.rpc" in reached
    assert "grpc" in reached
    found = {name: reached[name] for name in reached if name.split(".")[0] in ENGINES}
    assert not found


def test_the_running_daemon_holds_no_engine_library() -> None:
    """What importing it, and all it imports later, really loads; third parties' imports too."""
    later = sorted(name for name in _reach("gemd.daemon") if name in _modules())
    loaded = _loaded_by(f"import importlib\nfor name in {later}: importlib.import_module(name)")
    assert "gemd.daemon" in loaded
    assert "grpc" in loaded
    assert not {name.split(".")[0] for name in loaded} & ENGINES
    assert not {name for name in loaded if name.startswith("gemd.worker")}


def test_help_does_not_pay_for_grpc() -> None:
    """`gemctl --help` loads neither grpc nor the stubs."""
    loaded = _loaded_by(
        "import contextlib, io\n"
        "sys.argv = ['gemctl', '--help']\n"
        "from gemd.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "assert 'Usage' in out.getvalue()\n"
    )
    assert "gemd.cli" in loaded
    assert not {name for name in loaded if name.split(".")[0] in {"grpc", "google"}}
    assert not {name for name in loaded if name.startswith("gemd.v1")}


def _loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stdout.split())
