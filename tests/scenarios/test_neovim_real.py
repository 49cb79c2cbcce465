"""The Neovim plugin with the real daemon and the real model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.desktop import MODEL, PARIS, Desktop, wait_until
from tests.support.neovim import FOUND, MISSING, drive

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(FOUND is None, reason=MISSING)]

SETUP = f'gemd.setup({{ model = "{MODEL}" }})\n'


def test_a_question_is_answered_in_a_split(running: Desktop, tmp_path: Path) -> None:
    """Loading is told of, the text comes in pieces, and it names Paris."""
    script = f"""
    gemd.ask("{PARIS}")
    local statuses, sizes = {{}}, {{}}
    wait(function()
      statuses[gemd.status()] = true
      sizes[#lines()[3]] = true
      return idle()
    end)
    return {{ vim.tbl_keys(statuses), #vim.tbl_keys(sizes), lines(), #vim.api.nvim_list_wins() }}
    """
    driven = drive(SETUP + script, tmp_path, running.environ)
    statuses, sizes, lines, windows = driven.result

    assert driven.told == []
    assert "Paris" in "\n".join(lines)
    assert lines[0] == f"# {PARIS}"
    assert "gemd: writing" in statuses
    assert any(status.startswith(f"gemd: loading {MODEL}") for status in statuses)
    assert sizes > 2
    assert windows == 2


def test_a_sentence_is_gone_on_with_and_undone(running: Desktop, tmp_path: Path) -> None:
    """Raw continuation at the cursor."""
    script = """
    gemd.setup({ complete_tokens = 8, arguments = { "--temperature", "0" } })
    set("The capital of France is", "")
    vim.api.nvim_win_set_cursor(0, { 1, 23 })
    vim.cmd("GemdComplete")
    wait(idle)
    local written = lines()
    normal("u")
    return { written, lines() }
    """
    driven = drive(SETUP + script, tmp_path, running.environ)
    written, undone = driven.result

    assert driven.told == []
    assert written[0].startswith("The capital of France is Paris")
    assert undone == ["The capital of France is", ""]


def test_lines_are_replaced_and_stopping_ends_the_work(running: Desktop, tmp_path: Path) -> None:
    """What the model writes stands where they stood; a long answer is cancelled in the daemon."""
    script = """
    set("above", "hello world", "below")
    vim.cmd("2GemdReplace Write a long story about this")
    wait(function() return gemd.status() == "gemd: writing" end)
    vim.cmd("GemdStop")
    wait(idle)
    return lines()
    """
    driven = drive(SETUP + script, tmp_path, running.environ)

    assert driven.told == ["gemd: cancelled"]
    assert (driven.result[0], driven.result[-1]) == ("above", "below")
    assert "hello world" not in driven.result[1:-1]
    with running.client() as client:
        wait_until(lambda: client.status().running_requests == 0, what="the end of the work")
