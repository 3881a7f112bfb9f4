"""The parts of `trio-ws connect` that need no terminal: what is shown, typed and kept."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pyte
import pytest
import trio

from trio_ws._command.above import above_cursor
from trio_ws._command.history import History, history_file
from trio_ws._command.terminal import write_all
from trio_ws._command.typed import Leave, Send, SendPing, Tell, Toggle, understand
from trio_ws._command.visible import dump, pretty_json, visible


@pytest.mark.parametrize("before", [0, 3, 30])
def test_text_is_inserted_above_the_row_of_the_cursor(before: int) -> None:
    screen = pyte.Screen(20, 8)
    stream = pyte.Stream(screen)
    stream.feed("earlier\r\n" * before + "> typed\x1b[2D")
    for piece in above_cursor("one\n界界界界界界界界界界界\n\x1b[36m<\x1b[0m e\u0301\tx\n", 20, 8):
        stream.feed(piece)
    rows = [row.rstrip() for row in screen.display if row.strip()]
    assert rows[-1] == "> typed"
    assert [row.replace(" ", "") for row in rows[-5:-1]] == ["one", "界" * 10, "界", "<éx"]
    assert screen.cursor.x == len("> typ")


def test_more_text_than_the_screen_has_rows_goes_above_it_in_parts() -> None:
    screen = pyte.HistoryScreen(20, 4, history=100, ratio=0.5)
    stream = pyte.Stream(screen)
    stream.feed("> typed")
    for piece in above_cursor("".join(f"{number}\n" for number in range(9)), 20, 4):
        stream.feed(piece)
    assert [row.rstrip() for row in screen.display] == ["6", "7", "8", "> typed"]


def test_what_could_play_tricks_is_visible() -> None:
    assert visible("a\tb\nc é 界 👩‍👩‍👧") == "a\tb\nc é 界 👩‍👩‍👧"
    assert visible("\x1b\x07\r\x7f\x9b\xad\u200f\u202e\u2069\U000e0041") == (
        r"\x1b\x07\r\x7f\x9b\xad\u200f\u202e\u2069\U000e0041"
    )
    assert dump(bytes(65)).endswith("00 …")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            '{"a":[1.50,{},[]],"a":null}',
            '{\n  "a": [\n    1.50,\n    {},\n    []\n  ],\n  "a": null\n}',
        ),
        (' ["\\u202e{,", "\u202e"]', '[\n  "\\u202e{,",\n  "\\u202e"\n]'),
        ("[]", "[]"),
        ("1", None),
        ("{no", None),
        ("[" * 100_000, None),
    ],
)
def test_json_is_laid_out_and_its_tokens_stay(text: str, shown: str | None) -> None:
    assert pretty_json(text, colour=False) == shown


def test_names_strings_and_numbers_have_colours() -> None:
    assert pretty_json('{"a": "b", "c": 1}', colour=True) == (
        '{\n  \x1b[36m"a"\x1b[0m: \x1b[32m"b"\x1b[0m,\n  \x1b[36m"c"\x1b[0m: \x1b[33m1\x1b[0m\n}'
    )


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("hello", Send("hello")),
        ("//x", Send("/x")),
        ("/binary 00 Ff", Send(b"\x00\xff")),
        ("/binary base64: AP8 =", Send(b"\x00\xff")),
        ("/ping", SendPing(None)),
        ("/ping a b", SendPing(b"a b")),
        ("/close", Leave(1000, "")),
        ("/close 4000 see you", Leave(4000, "see you")),
        ("/quit", Leave()),
        ("/json", Toggle("json")),
        ("/times", Toggle("times")),
    ],
)
def test_a_line_means(line: str, action: object) -> None:
    assert understand(line) == action


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/binary xyz", "write the bytes in hexadecimal"),
        ("/binary base64:x", "write the bytes in hexadecimal"),
        ("/ping " + "x" * 126, "a ping holds 125 bytes, and this text takes 126"),
        ("/close now", "write /close CODE REASON"),
        ("/close 1005", "close code 1005 may not be sent"),
        ("/other", "no command /other"),
        ("/help", "/ping [TEXT]"),
    ],
)
def test_a_line_that_cannot_be_obeyed_is_answered(line: str, told: str) -> None:
    action = understand(line)
    assert isinstance(action, Tell)
    assert action.text.startswith(told)


def test_the_history_has_lines_of_any_kind_and_forgets_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history"
    history = History(path)
    lines = ["first", "two\nlines", "\u202e", *map(str, range(2000))]
    for line in lines:
        history.append(line)
    assert history.lines == lines
    with path.open("a") as file:
        file.write("broken\n3\n")
    assert History(path).lines == lines[-1000:]
    assert History(path).lines == lines[-1000:]
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == ["history"]


def test_a_history_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "history", None):
        history = History(path)
        history.append("hello")
        assert history.lines == ["hello"]
        assert History(path).lines == []


@pytest.mark.parametrize("state", ["", "relative"])
def test_the_history_is_at_home_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", state)
    assert history_file() == Path("/home/me/.local/state/trio-ws/history")


async def test_text_is_written_whole_where_the_output_does_not_block() -> None:

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        text = "x" * 1_000_000
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write_all, theirs.fileno(), text)
            while len(received) < len(text):
                received += await trio.to_thread.run_sync(os.read, ours.fileno(), 65536)
        assert received == text.encode()
