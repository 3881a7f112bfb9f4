"""`trio-ws connect`: sending lines, printing messages, and exit codes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess

import pytest
import trio

from tests.command.cli_helpers import PATIENCE, run, running
from tests.helpers import HOST, echo, open_server
from trio_ws import WebSocket


async def test_lines_are_sent_and_answers_awaited_for_a_moment() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server, running("connect", server.urls[0]) as client:
            await client.write("one\r\n\ntwo ✓\nthree")
            await client.end_input()
            assert await client.status() == 0
    assert client.output.splitlines() == [
        f"Connected to {server.urls[0]}",
        "< one",
        "< ",
        "< two ✓",
        "< three",
        "Closed: 1000 (normal closure), closed by us",
    ]


async def test_a_password_in_the_url_is_not_shown() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            url = server.urls[0].replace("//", "//me:secret@")
            for wrong, status in ("", 0), ("#a", 2):
                async with running("connect", url + wrong, "--wait", "0") as client:
                    await client.end_input()
                    assert await client.status() == status
                assert "//***@" in client.output
                assert "secret" not in client.output


async def test_messages_of_a_peer_cannot_move_the_cursor() -> None:
    async def handler(ws: WebSocket) -> None:
        assert ws.request.headers["X-Name"] == "a: b"
        assert ws.request.headers["Origin"] == "http://example.org"
        await ws.send("\x1b[2J\x9b1m\ttwo\nlines")
        await ws.send(b"\x00\xff")
        await ws.send(bytes(65))
        await ws.aclose(1008, "enough")

    options = ["--header", "X-Name: a: b", "--origin", "http://example.org", "--subprotocol", "x"]
    with trio.fail_after(PATIENCE):
        async with (
            open_server(handler, subprotocols=["x"]) as server,
            running("connect", server.urls[0], *options) as client,
        ):
            assert await client.status() == 1  # with its input still open
    assert client.output.splitlines() == [
        f"Connected to {server.urls[0]}, x",
        r"< \x1b[2J\x9b1m" + "\ttwo",
        "< lines",
        "< (2 bytes) 00 ff",
        f"< (65 bytes) {' '.join(['00'] * 64)} …",
        "Closed: 1008 (policy violation), closed by the peer: enough",
    ]


async def test_in_a_terminal_ctrl_d_closes_with_1000() -> None:
    ours, theirs = pty.openpty()
    try:
        with trio.fail_after(PATIENCE):
            async with (
                open_server(echo) as server,
                running("connect", server.urls[0], stdin=theirs) as client,
            ):
                os.write(ours, b"hello\n")
                await client.read_until("< hello")
                os.write(ours, b"\x04")
                await client.read_until(r"Closed: 1000 \(normal closure\), closed by us")
                assert await client.status() == 0
    finally:
        os.close(ours)
        os.close(theirs)


async def test_ctrl_c_in_connect_says_1001_and_is_130() -> None:
    reasons = []

    async def handler(ws: WebSocket) -> None:
        await echo(ws)
        reasons.append(ws.close_reason)

    with trio.fail_after(PATIENCE):
        async with open_server(handler) as server, running("connect", server.urls[0]) as client:
            await client.write("hello\n")
            await client.read_until("< hello")
            assert await client.stop(signal.SIGINT) == 130
    (reason,) = reasons
    assert reason is not None
    assert reason.code == 1001
    assert "Traceback" not in client.output


async def test_a_reader_of_our_output_that_leaves_is_no_error_worth_a_traceback() -> None:
    read, write = os.pipe()
    with trio.fail_after(PATIENCE):
        async with (
            open_server(echo) as server,
            running("connect", server.urls[0], stdout=write, stderr=subprocess.DEVNULL) as client,
        ):
            os.close(write)
            os.close(read)
            await client.write("hello\n")
            assert await client.process.wait() == 1


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        ("http://localhost", 2, "trio-ws: "),
        (f"ws://{HOST}:1", 1, "trio-ws: "),
    ],
)
def test_not_connecting_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], url: str, status: int, message: str
) -> None:
    assert run("connect", url) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
