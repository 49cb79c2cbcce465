"""The grammar of schedules, and their way through the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.config import load_settings
from gemd.config.rules import Rule, parse_rule, parse_rules, write_rules
from gemd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

WEEKDAYS = frozenset(range(5))
WEEKENDS = frozenset({5, 6})
DAILY = WEEKDAYS | WEEKENDS


@pytest.mark.parametrize(
    "text, models, forbids, days, start, end, on_battery",
    [
        ("warm m", ("m",), False, DAILY, 0, 1440, None),
        ("warm m on weekdays 9:00-18:00", ("m",), False, WEEKDAYS, 540, 1080, None),
        ("WARM M ON Weekdays 9-18", ("M",), False, WEEKDAYS, 540, 1080, None),
        ("never m on battery", ("m",), True, DAILY, 0, 1440, True),
        ("warm m 9-18:30 on mains", ("m",), False, DAILY, 540, 1110, False),
        ("warm m battery weekends", ("m",), False, WEEKENDS, 0, 1440, True),
        ("warm m, n ,o on sat, sun 22-6", ("m", "n", "o"), False, WEEKENDS, 1320, 360, None),
        ("warm m fri-mon,wednesday", ("m",), False, frozenset({4, 5, 6, 0, 2}), 0, 1440, None),
        ("warm m,m on tue-tue", ("m",), False, frozenset({1}), 0, 1440, None),
        ("warm m daily 0-24", ("m",), False, DAILY, 0, 1440, None),
        ("warm m 22-0", ("m",), False, DAILY, 1320, 1440, None),
        ("warm /a/b.gguf 9–10", ("/a/b.gguf",), False, DAILY, 540, 600, None),
    ],
)
def test_a_rule_is_read(
    text: str,
    models: tuple[str, ...],
    *,
    forbids: bool,
    days: frozenset[int],
    start: int,
    end: int,
    on_battery: bool | None,
) -> None:
    """Verb, models, and days, hours and power in any order; what is not said does not matter."""
    rule = parse_rule("r", text)
    assert rule == Rule("r", text, models, forbids, days, start, end, on_battery)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "begins with ''"),
        ("wram m", "the nearest word is warm"),
        ("load m", "a rule begins with warm or never"),
        ("warm", "names no model"),
        ("warm on weekdays", "names no model"),
        ("warm m, on battery", "names no model"),
        ("warm m,,n", "names no model"),
        ("warm a;b", "a semicolon"),
        ("warm m on weekdys 9-18", "says 'weekdys', which is not known here; the nearest word is "),
        ("warm m on batery", "the nearest word is battery"),
        ("warm m other", "models are separated by commas"),
        ("warm m mon-", "says 'mon-'"),
        ("warm m mon-fir", "the nearest word is fri"),
        ("warm m on", "has an «on» that no days"),
        ("warm m on 9-18", "has an «on» that no days"),
        ("warm m on on battery", "has an «on» that no days"),
        ("warm m 9", "which are no hours such as 9-18"),
        ("warm m 9-25", "hours go from 0:00 to 24:00"),
        ("warm m 24-6", "hours go from 0:00 to 24:00"),
        ("warm m 9:60-10", "hours go from 0:00 to 24:00"),
        ("warm m 9-24:01", "hours go from 0:00 to 24:00"),
        ("warm m 9-9", "all day is 0-24"),
        ("warm m 0-0", "all day is 0-24"),
        ("warm m 9-12 14-18", "gives hours twice, the second time as '14-18'"),
        ("warm m on sat on sun", "write them together, such as sat,sun"),
        ("warm m on battery on mains", "gives power twice"),
    ],
)
def test_what_is_not_understood_is_named(text: str, says: str) -> None:
    """The rule, the word, and where there is one the word that was meant."""
    with pytest.raises(ValueError, match="has the rule r, which ") as caught:
        parse_rule("r", text)
    assert says in str(caught.value)


WORDS = st.sampled_from(
    ["warm", "never", "m", "m,n", "on", "battery", "mains", ",", ";", "x"]
) | st.sampled_from(["weekdays", "sat,sun", "fri-mon", "9-18", "22:30-6", "9", "24-1"])


@given(words=st.lists(WORDS, max_size=7), rest=st.text(max_size=5))
def test_any_text_is_a_rule_or_refused_and_a_rule_is_written_back(
    words: list[str], rest: str
) -> None:
    """Nothing but ValueError comes out of a text, and the written form means the same."""
    try:
        rule = parse_rule("r", " ".join([*words, rest]))
    except ValueError:
        return
    assert 0 <= rule.start < 1440
    assert 0 < rule.end <= 1440
    assert rule.start != rule.end
    assert rule.days
    assert rule.models
    assert parse_rules(write_rules((rule,))) == (rule,)


TABLE = """
[schedules]
mornings = "warm smollm2-135m on weekdays 9:00-18:00"
saver = "never gemma3-270m on battery"
"""
VARIABLE = "mornings=warm smollm2-135m on weekdays 9:00-18:00; saver=never gemma3-270m on battery;"


def test_a_table_and_a_variable_say_the_same(tmp_path: Path) -> None:
    """Rules by name, in their order, from the file or from the environment."""
    file = tmp_path / "config.toml"
    file.write_text(TABLE)
    from_file = load_settings(environ={}, file=file)
    from_variable = load_settings(environ={"GEMD_SCHEDULES": VARIABLE})
    assert [rule.name for rule in from_file.settings.schedules] == ["mornings", "saver"]
    assert from_file.settings.schedules == from_variable.settings.schedules
    assert from_file.origins["schedules"] == str(file)
    (shown,) = [item.value for item in from_file.describe() if item.description.key == "schedules"]
    assert load_settings(environ={"GEMD_SCHEDULES": shown}).settings == from_file.settings


@pytest.mark.parametrize(
    "table, says",
    [
        ('[schedules]\nx = "warm m on batery"', "schedules has the rule x, which says 'batery'"),
        ("[schedules]\nx = 9", "schedules has the rule x, which has to be text in quotes"),
        ("[schedules.x]\ny = 1", "schedules has the rule x, which has to be text in quotes"),
        ('[schedules]\n"a b" = "warm m"', "schedules has a rule named 'a b'"),
        ("schedules = 9", "schedules has to be a table of rules"),
        ('schedules = ["warm m"]', "schedules has to be a table of rules"),
        ('schedules = "warm m"', "has the part 'warm m', which is not of the form name=rule"),
        ('schedules = "a=warm m; a=warm n"', "schedules has two rules named a"),
    ],
)
def test_a_bad_rule_is_a_bad_setting(table: str, says: str, tmp_path: Path) -> None:
    """The error names the file, the setting, the rule and the word, and shows good ones."""
    file = tmp_path / "config.toml"
    file.write_text(table)
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={}, file=file)
    error = caught.value
    assert f"{file} sets schedules to " in error.message
    assert error.why.startswith(says) or says in error.why
    assert "mornings=warm smollm2-135m on weekdays 9-18" in error.why
    assert error.metadata["key"] == "schedules"
    assert error.advice == (f"${{EDITOR:-vi}} {file}",)
