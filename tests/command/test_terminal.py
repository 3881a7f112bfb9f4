"""`trio-ws connect` in a terminal: real processes in pseudo-terminals, with a screen to look at."""

from __future__ import annotations

import signal
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.command.cli_helpers import PATIENCE
from tests.command.terminals import Terminal, in_terminal
from tests.helpers import open_server
from tests.whole.server_process import SOAK
from trio_ws import ConnectionClosed, WebSocket

CONTROL_C = "\x03"
CONTROL_D = "\x04"
LEFT = "\x1b[D"
UP = "\x1b[A"

EDITORS = {
    "prompt_toolkit": (),
    "readline": ("prompt_toolkit",),
    "none": ("prompt_toolkit", "readline"),
}

Body = Callable[[Path, tuple[str, ...]], Awaitable[None]]


def at_once(*editors: str) -> Callable[[Body], Callable[[Path], Awaitable[None]]]:
    """Have a test run with each of these editors, all at the same time: Python starts slowly."""

    def decorate(body: Body) -> Callable[[Path], Awaitable[None]]:
        async def test(tmp_path: Path) -> None:
            async with trio.open_nursery() as nursery:
                for editor in editors:
                    state = tmp_path / editor
                    state.mkdir()
                    nursery.start_soon(body, state, EDITORS[editor], name=editor)

        return test

    return decorate


every_editor = at_once(*EDITORS)
both_editors = at_once("prompt_toolkit", "readline")


class Peer:
    """A server for one client at a time, whose connections the test holds."""

    def __init__(self, url: str, connections: trio.MemoryReceiveChannel[WebSocket]) -> None:
        self.url = url
        self.connections = connections


@asynccontextmanager
async def peer() -> AsyncGenerator[Peer, None]:
    send, receive = trio.open_memory_channel[WebSocket](0)

    async def handler(ws: WebSocket) -> None:
        await send.send(ws)
        await ws.wait_closed()

    with trio.fail_after(PATIENCE):
        async with open_server(handler) as server:
            yield Peer(server.urls[0], receive)


@asynccontextmanager
async def connected(
    state: Path, blocked: tuple[str, ...], *arguments: str, **options: str
) -> AsyncGenerator[tuple[Terminal, WebSocket], None]:
    """A terminal with a prompt, and the connection at its other end."""
    async with (
        peer() as other,
        in_terminal(
            "connect", other.url, *arguments, state=state, blocked=blocked, **options
        ) as terminal,
    ):
        ws = await other.connections.receive()
        prompt = "" if "readline" in blocked else ">"
        await terminal.until(
            lambda rows: len(rows) == 1 + len(prompt) and f"Connected to {other.url}" in rows[0]
        )
        yield terminal, ws


# ---------------------------------------------------------------------------
# Typing
# ---------------------------------------------------------------------------


@both_editors
async def test_what_arrives_is_shown_above_the_line_that_is_typed(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with connected(tmp_path, blocked) as (terminal, ws):
        await terminal.type("helo" + LEFT)
        await terminal.until_last("> helo")
        await ws.send("one\ntwo")
        await terminal.until_row("< one", "< two", "> helo")
        await terminal.type("l\r")
        assert await ws.receive() == "hello"
        await ws.send("three")
        assert (await terminal.until_row("< three", ">"))[1:] == [
            "< one",
            "< two",
            "> hello",
            "< three",
            ">",
        ]


@both_editors
async def test_a_message_larger_than_the_screen_leaves_the_line_alone(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    lines = [f"line {number}" for number in range(60)]
    long = "x" * 200 + "界" * 50
    async with connected(tmp_path, blocked) as (terminal, ws):
        await terminal.type("half")
        await terminal.until_last("> half")
        await ws.send("\n".join(lines))
        await ws.send(long)
        rows = await terminal.until(lambda rows: rows[-1] == "> half" and "界" in rows[-2])
        assert rows[1:61] == [f"< {line}" for line in lines]
        assert "".join(rows[61:-1]).replace(" ", "") == "<" + long


@both_editors
async def test_nothing_that_a_peer_sends_is_obeyed_by_the_terminal(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with connected(tmp_path, blocked) as (terminal, ws):
        await terminal.type("half")
        await terminal.until_last("> half")
        await ws.send("\x1b[2J\x1b]0;title\x07\r\x9b31m\x08\x00\u202eevil\u2066\u2028\ufeff")
        await ws.send(b"\x1b[2J")
        await ws.aclose(4000, "\x1b[31m\u202e")
        assert await terminal.status() == 1
        rows = terminal.rows()
        assert rows[1:3] == [
            r"< \x1b[2J\x1b]0;title\x07\r\x9b31m\x08\x00\u202eevil\u2066\u2028\ufeff",
            "< (4 bytes) 1b 5b 32 4a",
        ]
        assert rows[-1] == r"Closed: 4000, closed by the peer: \x1b[31m\u202e"
    assert b"\x1b[2J" not in terminal.raw
    assert b"\x07" not in terminal.raw
    assert b"\xe2\x80\xae" not in terminal.raw


@both_editors
async def test_the_size_of_the_terminal_may_change(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with connected(tmp_path, blocked) as (terminal, ws):
        await terminal.type("half")
        await terminal.until_last("> half")
        terminal.resize(40, 24)
        await ws.send("y" * 60)
        await terminal.until_row("< " + "y" * 38, "y" * 22, "> half")
        await terminal.type("\r")
        assert await ws.receive() == "half"


@both_editors
async def test_lines_are_kept_for_the_next_run_where_only_their_owner_can_read_them(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with connected(tmp_path, blocked) as (terminal, ws):
        for line in "first ✓", "", "second":
            await terminal.type(f"{line}\r")
            assert await ws.receive() == line
        await terminal.until_last(">")
        await terminal.type(CONTROL_D)
        assert await terminal.status() == 0
    file = tmp_path / "trio-ws" / "history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    async with connected(tmp_path, blocked) as (terminal, ws):
        await terminal.type(UP + UP)
        await terminal.until_last("> first ✓")
        await terminal.type("\r")
        assert await ws.receive() == "first ✓"
        await terminal.until_last(">")
        await terminal.type(CONTROL_D)
        assert await terminal.status() == 0


# ---------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------


@every_editor
async def test_a_line_that_begins_with_a_slash_is_a_command(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with connected(tmp_path, blocked, NO_COLOR="1") as (terminal, ws):
        await terminal.type("/ping hello\r")
        await terminal.until(lambda rows: any("Pong after" in row for row in rows))
        for line, message in {
            "/binary 00 fF": b"\x00\xff",
            "/binary base64: AP8=": b"\x00\xff",
            "//binary": "/binary",
        }.items():
            await terminal.type(line + "\r")
            assert await ws.receive() == message
        await terminal.type("/json\r")
        await terminal.until_row("json is on")
        await ws.send('{"a": [1, 1.50], "b": {}}')
        await terminal.until_row("< {", '<   "a": [', "<     1,", "<     1.50", "<   ],", "< }")
        await terminal.type("/nonsense\r")
        await terminal.until_row(
            "no command /nonsense: /help lists them, and //nonsense sends the text"
        )
        await terminal.type("/close 4001 see you\r")
        assert await terminal.status() == 0
        assert terminal.rows()[-1] == "Closed: 4001, closed by us: see you"
        assert ws.close_reason is not None
        assert (ws.close_reason.code, ws.close_reason.reason) == (4001, "see you")
    assert b"\x1b[36m" not in terminal.raw


@both_editors
async def test_json_has_colours_and_no_line_is_kept_if_none_should_be(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with connected(tmp_path, blocked, "--json", "--times", "--no-history") as (terminal, ws):
        await ws.send('["x"]')
        rows = await terminal.until(lambda rows: len(rows) == 5)
        await terminal.type("secret\r")
        assert await ws.receive() == "secret"
        await terminal.until_last(">")
        await terminal.type(CONTROL_D)
        assert await terminal.status() == 0
    assert not (tmp_path / "trio-ws").exists()
    time, mark, text = rows[2].split(maxsplit=2)
    assert (mark, text) == ("<", '"x"')
    assert len(time) == len("12:34:56.789")
    assert b'\x1b[32m"x"\x1b[0m' in terminal.raw


# ---------------------------------------------------------------------------
# Ends
# ---------------------------------------------------------------------------


ENDS = {
    CONTROL_C: (130, 1001),
    CONTROL_D: (0, 1000),
    "/quit\r": (0, 1000),
    "SIGTERM": (143, 1001),
    "the peer closes": (0, 1000),
    "the peer fails": (1, 1011),
}
#: In the time that there is for the whole suite. `make soak` has all of them.
SOME_ENDS = [
    ("prompt_toolkit", CONTROL_C),
    ("prompt_toolkit", "SIGTERM"),
    ("readline", CONTROL_C),
    ("readline", "the peer fails"),
    ("none", "/quit\r"),
]


async def test_whatever_ends_it_the_terminal_is_as_before(tmp_path: Path) -> None:
    rows = [(editor, end) for editor in EDITORS for end in ENDS] if SOAK else SOME_ENDS
    two_at_a_time = trio.CapacityLimiter(2)  # more would only wait for the processors

    async def run(number: int, editor: str, end: str) -> None:
        async with two_at_a_time:
            state = tmp_path / str(number)
            state.mkdir()
            await end_it(state, EDITORS[editor], end)

    async with trio.open_nursery() as nursery:
        for number, (editor, end) in enumerate(rows):
            nursery.start_soon(run, number, editor, end, name=f"{editor}: {end!r}")


async def end_it(state: Path, blocked: tuple[str, ...], end: str) -> None:
    status, code = ENDS[end]
    async with connected(state, blocked) as (terminal, ws):
        if not end.endswith("\r") and end != CONTROL_D:
            await terminal.type("half a line")
            await terminal.until(lambda rows: rows[-1].endswith("half a line"))
        if end == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        elif end == "the peer closes":
            await ws.aclose()
        elif end == "the peer fails":
            await ws.aclose(1011)
        else:
            await terminal.type(end)
        assert await terminal.status() == status
        assert terminal.is_as_before()
        assert not [row for row in terminal.rows() if "Warning" in row or "Traceback" in row]
        if status in (0, 1):
            assert f"Closed: {code} " in terminal.rows()[-1]
        with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):
            await ws.receive()
        assert ws.close_reason is not None
        assert ws.close_reason.code == code
    # Nothing is left switched on: the bracketed paste of either editor, its keypad, its mouse.
    assert terminal.raw.count(b"\x1b[?2004h") == terminal.raw.count(b"\x1b[?2004l")


@both_editors
async def test_a_line_that_is_being_typed_outlives_the_connection(
    tmp_path: Path, blocked: tuple[str, ...]
) -> None:
    async with (
        peer() as other,
        in_terminal(
            "connect", other.url, "--reconnect", state=tmp_path, blocked=blocked
        ) as terminal,
    ):
        ws = await other.connections.receive()
        await terminal.until_last(">")
        await terminal.type("half")
        await terminal.until_last("> half")
        await ws.aclose(1012)
        again = await other.connections.receive()
        connected = f"Connected to {other.url}"
        await terminal.until_row(
            connected,
            "Closed: 1012 (service restart), closed by the peer",
            "The connection closed; connecting again",
            connected,
            "> half",
        )
        await terminal.type(" and half\r")
        assert await again.receive() == "half and half"
        await terminal.until_last(">")
        await terminal.type(CONTROL_D)
        assert await terminal.status() == 0
        assert terminal.is_as_before()


async def test_a_terminal_that_can_do_nothing_has_no_prompt_and_no_colour(tmp_path: Path) -> None:
    async with connected(tmp_path, EDITORS["none"], TERM="dumb") as (terminal, ws):
        await ws.send("hello")
        await terminal.until_row("< hello")
    assert b"\x1b" not in terminal.raw
