"""Numbers in the pages of docs/explanation/ are those of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tests.project.options_table import OPTIONS, show_default
from tests.project.pages import ROOT
from trio_ws import ListenerOptions
from trio_ws._connection.ending import POST_MORTEM
from trio_ws._connection.liveness import WAKE_PATIENCE
from trio_ws._connection.reader import LAST_ANSWERS, LINGER
from trio_ws._transport.opening import REFUSAL_LINGER
from trio_ws._transport.sockets import LARGE_RECEIVE_SIZE

TIMEOUTS = ROOT / "docs/explanation/timeouts.md"
MEMORY = ROOT / "docs/explanation/memory.md"
BACKPRESSURE = ROOT / "docs/explanation/backpressure.md"

IS_A_TIME = re.compile(r"\w+_(timeout|interval|period|lifetime)")


def test_the_page_of_timeouts_has_every_option_that_is_one_with_its_default() -> None:
    fields = {field.name: field for kind in OPTIONS for field in dataclasses.fields(kind)}
    times = {
        name: show_default(field) for name, field in fields.items() if IS_A_TIME.fullmatch(name)
    }
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TIMEOUTS.read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == times


def test_the_page_of_timeouts_has_the_constants() -> None:
    rows = re.findall(r"^\| ([\w -]+) \| (\d+) s \|", TIMEOUTS.read_text("utf-8"), re.MULTILINE)
    assert {what: float(seconds) for what, seconds in rows} == {
        "linger": LINGER,
        "refusal": REFUSAL_LINGER,
        "last answers": LAST_ANSWERS,
        "post-mortem": POST_MORTEM,
        "waking": WAKE_PATIENCE,
    }


def test_the_sum_on_the_page_of_memory_has_the_defaults() -> None:
    options = ListenerOptions()
    text = MEMORY.read_text("utf-8")
    shown = dict(re.findall(r"^[+ ] (\w[\w ]*?) {2,}(\d+ [KM]iB)", text, re.MULTILINE))
    assert shown == {
        "max_queued_bytes": in_units(options.max_queued_bytes),
        "one read": in_units(LARGE_RECEIVE_SIZE),
        "max_message_size": in_units(options.max_message_size),
        "max_send_buffer": in_units(options.max_send_buffer),
    }


def test_defaults_in_the_text_are_those_of_the_options() -> None:
    options = ListenerOptions()
    for page in (BACKPRESSURE, ROOT / "docs/explanation/what-happens-when.md"):
        check_defaults(page, options)


def check_defaults(page: Path, options: ListenerOptions) -> None:
    """Check each `option` that is followed by its default in parentheses."""
    text = page.read_text("utf-8").replace("\n", " ")
    found = re.findall(r"`(\w+(?: \+ \w+)?)`\s+\((\d+)(?:,\d+)? ?(KiB|MiB|s)?\b", text)
    assert found
    units = {"KiB": 2**10, "MiB": 2**20, "s": 1, "": 1}
    for names, number, unit in found:
        total = sum(getattr(options, name) for name in names.split(" + "))
        assert total == int(number) * units[unit], (page.name, names)


def in_units(size: float) -> str:
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
