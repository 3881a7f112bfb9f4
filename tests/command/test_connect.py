"""`trio-ws connect`: sending lines, printing messages, and exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from operator import itemgetter
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.client.proxy_helpers import CREDENTIALS, tinyproxy
from tests.command.cli_helpers import PATIENCE, run, running
from tests.handshake.handshake_helpers import ACCEPTING, read_head, request_fields
from tests.helpers import HOST, echo, open_server, reset
from tests.tls_helpers import tls_contexts
from trio_ws import WebSocket
from trio_ws._command.console import Console
from trio_ws._command.formats import Text
from trio_ws._command.talking import Conversation, Plan
from trio_ws._handshake.both_sides import accept_value
from trio_ws._keywords import ClientKeywords

#: How many bytes a pipe holds.
PIPE_SIZE = 65536


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
            open_server(handler, subprotocols=["x"], origins=["http://example.org"]) as server,
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


# ---------------------------------------------------------------------------
# For scripts
# ---------------------------------------------------------------------------


async def test_records_have_the_time_the_direction_and_what_came(tmp_path: Path) -> None:
    began = time.time()
    arguments = ["--jsonl", "--slash", "--count", "2", "--ping", "0.01", "--no-compression"]
    with trio.fail_after(PATIENCE):
        async with (
            open_server(echo, subprotocols=["x"]) as server,
            running(
                *("connect", server.urls[0].replace("//", "//me:secret@"), "--subprotocol", "x"),
                *arguments,
                stderr=subprocess.DEVNULL,
            ) as client,
        ):
            await client.write("hello \x1b\n")
            await client.read_until('"pong"')
            await client.write("/json\n/binary ff\n")  # which of records /json lays out none
            assert await client.status() == 0
    records = [json.loads(line) for line in client.output.splitlines()]
    records.sort(key=itemgetter("time"))  # an answer may be written before what it answers
    times = [record.pop("time") for record in records]
    assert began <= times[0] <= times[-1] <= time.time()
    pongs = [record for record in records if record["kind"] == "pong"]
    assert all(0 < pong.pop("seconds") < PATIENCE for pong in pongs)
    assert pongs[0] == {"direction": "in", "kind": "pong"}
    others = [record for record in records if record["kind"] != "pong"]
    assert others == [
        {
            "direction": "out",
            "kind": "open",
            "url": server.urls[0].replace("//", "//***@"),
            "subprotocol": "x",
        },
        {"direction": "out", "kind": "text", "data": "hello \x1b"},
        {"direction": "in", "kind": "text", "data": "hello \x1b"},
        {"direction": "out", "kind": "binary", "data": "/w=="},
        {"direction": "in", "kind": "binary", "data": "/w=="},
        {"direction": "out", "kind": "close", "code": 1000, "reason": ""},
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["--expect", "^two$"], 0, ["< one", "< two"]),
        (["--expect", "four"], 3, ["< one", "< two", "< three"]),
        (["--expect", "t", "--count", "1"], 3, ["< one"]),
        (["--count", "2"], 0, ["< one", "< two"]),
        (["--count", "4"], 3, ["< one", "< two", "< three"]),
        (["--expect", "four", "--timeout", "0.1", "/silent"], 3, None),
    ],
)
async def test_the_exit_code_says_whether_what_was_expected_came(
    arguments: list[str], status: int, output: list[str] | None
) -> None:
    async def handler(ws: WebSocket) -> None:
        if ws.request.path != "/silent":
            for word in "one", "two", "three":
                await ws.send(word)
        else:
            await ws.receive()

    options = [argument for argument in arguments if not argument.startswith("/")]
    path = arguments[-1][1:] if arguments[-1].startswith("/") else ""
    with trio.fail_after(PATIENCE):
        async with (
            open_server(handler) as server,
            running("connect", server.urls[0] + path, *options) as client,
        ):
            assert await client.status() == status
    lines = client.output.splitlines()
    if output is not None:
        assert [line for line in lines if line.startswith("<")] == output
    if status == 3:
        assert lines[-1].startswith(("trio-ws: no message matched '", "trio-ws: 3 of 4 messages"))


async def test_credentials_come_from_files_that_others_cannot_read(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def handler(ws: WebSocket) -> None:
        seen.extend(
            (name, value)
            for name, value in ws.request.headers.fields
            if name in ("Authorization", "X-One", "X-Two")
        )

    (tmp_path / "basic").write_text("me:päss\n", "utf-8")
    (tmp_path / "token").write_text("abc\n", "utf-8")
    (tmp_path / "headers").write_text("X-One: 1\n\nX-Two: 2\n", "utf-8")
    with trio.fail_after(PATIENCE):
        async with open_server(handler) as server:
            for options in (
                ["--auth", "@basic"],
                ["--bearer", "@token"],
                ["--auth", "me:", "--header", "@headers"],
            ):
                async with running("connect", server.urls[0], *options, cwd=tmp_path) as client:
                    assert await client.status() == 0
    assert seen == [
        ("Authorization", "Basic bWU6cMOkc3M="),
        ("Authorization", "Bearer abc"),
        ("X-One", "1"),
        ("X-Two", "2"),
        ("Authorization", "Basic bWU6"),
    ]


async def test_a_server_is_reached_through_a_proxy_whose_password_is_in_a_file(
    tmp_path: Path,
) -> None:
    with trio.fail_after(PATIENCE), tinyproxy(tmp_path, CREDENTIALS) as port:
        (tmp_path / "proxy").write_text(f"http://{CREDENTIALS}@{HOST}:{port}\n", "utf-8")
        async with (
            open_server(echo) as server,
            running(
                *("connect", server.urls[0], "--proxy", "@proxy", "--wait", "0"), cwd=tmp_path
            ) as client,
        ):
            await client.end_input()
            assert await client.status() == 0
        log = (tmp_path / f"tinyproxy-{port}.log").read_text("utf-8")
    assert f"CONNECT {server.urls[0][5:-1]}" in log


def test_the_proxy_of_the_environment_is_used_unless_there_should_be_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_PROXY", f"http://{HOST}:1")  # nobody is there
    assert run("connect", "ws://nowhere.invalid") == 1
    assert f"(via WS_PROXY=http://{HOST}:1)" in capsys.readouterr().err
    assert run("connect", "ws://nowhere.invalid", "--proxy", "none") == 1
    assert "cannot connect to nowhere.invalid:80: " in capsys.readouterr().err


async def test_sigterm_in_a_pipe_says_1001_and_is_143() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server, running("connect", server.urls[0]) as client:
            await client.write("hello\n")
            await client.read_until("< hello")
            assert await client.stop(signal.SIGTERM) == 143
    assert "Traceback" not in client.output


async def test_a_reader_of_our_output_that_leaves_ends_it_though_the_peer_is_silent() -> None:
    read, write = os.pipe()
    with trio.fail_after(PATIENCE):
        async with (
            open_server(echo) as server,
            running("connect", server.urls[0], stdout=write, stderr=subprocess.DEVNULL) as client,
        ):
            os.close(write)
            await client.write("hello\n")
            assert await trio.to_thread.run_sync(os.read, read, 100) == b"< hello\n"
            os.close(read)
            assert await client.process.wait() == 1


async def test_a_reader_that_pauses_loses_nothing_and_the_connection_lives() -> None:
    """More than a pipe holds, while the peer is pinged and answers."""
    messages = ["x" * 1000] * 500
    ponged = trio.Event()

    async def handler(ws: WebSocket) -> None:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(send_all, ws)
            await ws.ping()
            ponged.set()
            await ws.receive()

    async def send_all(ws: WebSocket) -> None:
        for message in messages:
            await ws.send(message)

    with trio.fail_after(PATIENCE):
        async with (
            open_server(handler) as server,
            running(
                "connect", server.urls[0], "--count", "500", stderr=subprocess.DEVNULL
            ) as client,
        ):
            await ponged.wait()
            assert await client.status() == 0
    assert client.output == "".join(f"< {message}\n" for message in messages)


async def test_what_comes_from_a_pipe_while_there_is_no_connection_waits_for_the_next() -> None:
    received: list[str | bytes] = []

    async def handler(ws: WebSocket) -> None:
        received.append(await ws.receive())
        await ws.aclose(1012)

    with trio.fail_after(PATIENCE):
        async with (
            open_server(handler) as server,
            running("connect", server.urls[0], "--reconnect") as client,
        ):
            for line in "one", "two":
                await client.write(f"{line}\n")
                await client.read_until(r"Closed: 1012 \(service restart\), closed by the peer")
            await client.read_until("Connected to")
            await client.end_input()
            assert await client.status() == 0
    assert received == ["one", "two"]


async def test_what_is_typed_while_there_is_no_connection_is_given_back() -> None:
    connections = []

    async def handler(ws: WebSocket) -> None:
        connections.append(ws)
        await ws.wait_closed()

    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as server_stack:
            server = await server_stack.enter_async_context(open_server(handler))
            async with running("connect", server.urls[0], "--reconnect", "--slash") as client:
                await client.read_until("Connected to")
                await server_stack.aclose()
                await client.read_until("; connecting again")
                await client.write("/ping\nhello\n/binary ff\n")
                await client.read_until("^Not connected, and so not sent: hello$")
                await client.read_until("^Not connected, and so not sent: 1 bytes$")
                await client.write("/quit\n")
                assert await client.status() == 0
    assert len(connections) == 1


async def test_connecting_again_ends_with_an_end_that_is_final() -> None:
    codes = iter([1012, 1008])

    async def handler(ws: WebSocket) -> None:
        await ws.aclose(next(codes))

    with trio.fail_after(PATIENCE):
        async with (
            open_server(handler) as server,
            running("connect", server.urls[0], "--reconnect") as client,
            open_server(handler, origins=["http://a"]) as refusing,
            running(
                *("connect", refusing.urls[0], "--reconnect", "--origin", "http://b")
            ) as refused,
        ):
            assert await client.status() == 1
            assert await refused.status() == 1
    lines = [line.partition(" (")[0] for line in client.output.splitlines()]
    assert [line for line in lines if line.startswith("Closed")] == ["Closed: 1012", "Closed: 1008"]
    assert client.output.count("The connection closed; connecting again") == 1
    (line,) = refused.output.splitlines()
    assert line.startswith("trio-ws: ")


async def test_a_line_that_is_cut_off_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell whether it arrived. The first one here fills all buffers."""
    give, take = trio.open_memory_channel[str](0)
    notes_in, notes = trio.open_memory_channel[str](inf)

    async def read_line(console: Console) -> str | None:
        return await take.receive()

    async def write(console: Console, descriptor: int, text: str) -> None:
        await notes_in.send(text)

    monkeypatch.setattr(Console, "read_line", read_line)
    monkeypatch.setattr(Console, "write", write)
    with trio.fail_after(PATIENCE):
        async with breaking_server() as (url, may_break), trio.open_nursery() as nursery:
            plan = Plan(url=url, commands=True, wait=0, reconnect=True)
            form = Text(json=False, times=False, colour=False)
            conversation = Conversation(plan, Console(), form)
            nursery.start_soon(conversation.run, ClientKeywords(compression=None))
            await give.send("x" * 20_000_000)
            await give.send("y" * 65)
            await trio.testing.wait_all_tasks_blocked()
            may_break.set()
            wanted = f"The connection closed before this was sent: {'y' * 64} …\n"
            while await notes.receive() != wanted:
                pass
            nursery.cancel_scope.cancel()


async def test_a_ping_that_is_never_answered_ends_with_the_connection() -> None:
    with trio.fail_after(PATIENCE):
        async with (
            breaking_server() as (url, may_break),
            running("connect", url, "--slash") as client,
        ):
            may_break.set()
            await client.write("/ping\n")
            assert await client.status() == 1
    assert "Pong" not in client.output
    assert client.output.splitlines()[-1].startswith("Closed: 1006")


@asynccontextmanager
async def breaking_server() -> AsyncGenerator[tuple[str, trio.Event], None]:
    """A server that breaks each connection after its first bytes, once the event is set."""
    may_break = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        head = await read_head(stream)
        accept = accept_value(request_fields(head)["Sec-WebSocket-Key"]).encode()
        await stream.send_all(ACCEPTING.replace(b"{accept}", accept))
        await stream.receive_some()
        await may_break.wait()
        reset(stream)

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, serve, 0, host=HOST))
        yield f"ws://{HOST}:{listener.socket.getsockname()[1]}/", may_break
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------------------
# Pipes
# ---------------------------------------------------------------------------


async def test_ctrl_c_ends_it_whatever_becomes_of_the_reader_of_its_output() -> None:
    """One reader has paused for good, and one ends at the same moment, as in a pipeline."""

    async def handler(ws: WebSocket) -> None:
        await ws.send("x" * 2 * PIPE_SIZE)
        await ws.wait_closed()

    async def interrupt(url: str, *, reader_ends: bool) -> None:
        read, write = os.pipe()
        async with running("connect", url, stdout=write, stderr=subprocess.PIPE) as client:
            os.close(write)
            while unread(read) < PIPE_SIZE:
                await trio.sleep(0.01)
            client.process.send_signal(signal.SIGSTOP)
            client.process.send_signal(signal.SIGINT)
            if reader_ends:
                os.close(read)
            client.process.send_signal(signal.SIGCONT)
            assert client.process.stderr is not None
            errors = b"".join([data async for data in client.process.stderr])
            assert await client.process.wait() == 130
            assert len(errors.splitlines()) <= 2, errors
        if not reader_ends:
            os.close(read)

    with trio.fail_after(PATIENCE):
        async with open_server(handler) as server, trio.open_nursery() as nursery:
            for reader_ends in False, True:
                nursery.start_soon(partial(interrupt, server.urls[0], reader_ends=reader_ends))


def unread(pipe: int) -> int:
    """How many bytes wait in it."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


async def test_a_line_longer_than_a_pipe_holds_is_one_message() -> None:
    line = "x" * 100_000
    with trio.fail_after(PATIENCE):
        async with (
            open_server(echo) as server,
            running("connect", server.urls[0], "--count", "1") as client,
        ):
            await client.write(line + "\n")
            assert await client.status() == 0
    assert f"< {line}" in client.output.splitlines()


async def test_an_input_that_cannot_be_read_is_at_its_end() -> None:
    """As a terminal that has gone away, which is harder to get at the right moment."""
    unreadable = os.open(os.devnull, os.O_WRONLY)
    try:
        with trio.fail_after(PATIENCE):
            async with (
                open_server(echo) as server,
                running("connect", server.urls[0], "--wait", "0", stdin=unreadable) as client,
            ):
                assert await client.status() == 0
    finally:
        os.close(unreadable)


async def test_an_output_that_cannot_be_written_is_said_in_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with trio.fail_after(PATIENCE), os.fdopen(full, "wb"):
        async with open_server(echo) as server:
            async with running(
                "connect", server.urls[0], stdout=full, stderr=subprocess.PIPE
            ) as client:
                assert client.process.stdin is not None
                assert client.process.stderr is not None
                await client.process.stdin.send_all(b"hello\n")
                said = b"".join([piece async for piece in client.process.stderr]).decode()
                assert await client.process.wait() == 1
    assert said.splitlines()[1:] == ["trio-ws: cannot write the output: No space left on device"]


async def test_streams_that_are_closed_are_not_taken_for_others() -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(echo) as server:
            command = f"{sys.executable} -m trio_ws connect {server.urls[0]}"
            for closed in ("<&-", ">&-", "<&- >&- 2>&-"):
                await trio.run_process(["sh", "-c", f"{command} --wait 0 {closed}"], stdin=b"hi")


async def test_a_certificate_that_is_not_trusted_has_the_options_for_it() -> None:
    with trio.fail_after(PATIENCE):
        async with (
            open_server(echo, ssl_context=tls_contexts("localhost")[0]) as server,
            running("connect", server.urls[0]) as client,
        ):
            assert await client.status() == 1
    assert "--cafile FILE trusts" in client.output
