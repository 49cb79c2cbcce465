"""Neovim without a screen, with gemd's plugin and a script that drives it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "service" / "editors" / "nvim"
FOUND = os.environ.get("GEMD_TEST_NVIM") or shutil.which("nvim")
"""The editor; the variable names another one than that on the PATH."""
MISSING = "nvim is not installed (apt-get install neovim), and GEMD_TEST_NVIM names none"

# The script is a coroutine: between its steps the editor waits for keys, as it does for a user.
# Only then does it end a step of undo by itself.
_PRELUDE = """
local gemd = require("gemd")
gemd.setup({ command = vim.fn.json_decode(os.getenv("GEMD_TEST_GEMCTL")) })
local told = {}
vim.notify = function(message) table.insert(told, message) end
local function wait(what) while not what() do coroutine.yield() end end
local function pause() coroutine.yield() coroutine.yield() end
local function idle() return gemd.status() == "" end
local function lines() return vim.api.nvim_buf_get_lines(0, 0, -1, true) end
local function set(...) vim.api.nvim_buf_set_lines(0, 0, -1, true, { ... }) pause() end
local function normal(keys) vim.cmd("normal! " .. keys) pause() end
local function virtual()
  local found = {}
  local space = vim.api.nvim_get_namespaces().gemd
  for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
    for _, line in ipairs(mark[4].virt_lines or {}) do table.insert(found, line[1][1]) end
  end
  return table.concat(found, "\\n")
end
local function main()
"""
_END = """
end
local step = coroutine.create(main)
local timer = vim.loop.new_timer()
timer:start(0, 5, vim.schedule_wrap(function()
  if coroutine.status(step) == "dead" then return end
  local ok, result = coroutine.resume(step)
  if coroutine.status(step) ~= "dead" then return end
  result = ok and result or debug.traceback(step, result)
  local said = vim.fn.json_encode({ ok = ok, result = result, told = told })
  vim.fn.writefile({ said }, os.getenv("GEMD_TEST_RESULT"))
  vim.cmd("qall!")
end))
"""


@dataclass(frozen=True)
class Driven:
    """What became of a script.

    Attributes:
        result: What it returned; empty tables are lists.
        told: What the plugin notified of.

    """

    result: Any
    told: list[str]


def drive(script: str, folder: Path, environ: Mapping[str, str]) -> Driven:
    """Run the body of a Lua function in a fresh editor whose gemctl has this environment.

    Beside the editor's own it has `gemd`, the plugin; `set(…)`, the lines of the buffer, and
    `lines()`; `normal(keys)`; `wait(condition)`; `idle`, the condition that no answer comes; and
    `virtual()`, what is shown and no part of the buffer.

    Raises:
        AssertionError: The script failed, with its traceback.

    """
    assert FOUND is not None
    file, result = folder / "script.lua", folder / "result.json"
    file.write_text(f"{_PRELUDE}{script}{_END}", encoding="utf-8")
    done = subprocess.run(
        [
            FOUND,
            *["--headless", "--clean", "-n", "-i", "NONE", "--cmd"],
            f"set runtimepath^={PLUGIN}",
            "-S",
            file,
        ],
        env={
            **environ,
            "PYTHONPATH": str(ROOT),
            "GEMD_TEST_GEMCTL": json.dumps([sys.executable, "-m", "gemd.cli"]),
            "GEMD_TEST_RESULT": str(result),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.exists(), done.stdout + done.stderr
    content = json.loads(result.read_text(encoding="utf-8"))
    assert content["ok"], content["result"]
    return Driven(content.get("result"), list(content["told"]))
