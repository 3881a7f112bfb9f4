"""`trio-ws serve --metrics`: sums over workers that are exact, and a port that only shows them."""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_ws.metrics
from tests.command.cli_helpers import PATIENCE, Command, run, running, serving
from tests.metrics.metrics_helpers import Samples
from trio_ws import WebSocket, open_websocket_url
from trio_ws._command import scraping
from trio_ws._command.boards import TABLE, Boards, measured_on_board
from trio_ws._command.scraping import scraped
from trio_ws._metering import CONNECTIONS, MESSAGES_SENT, SIZE, Numbers, no_numbers

ANYWHERE = ["--metrics", "127.0.0.1:0"]


async def metrics_port(command: Command) -> int:
    return int(re.search(r"metrics are at http://127.0.0.1:(\d+)/metrics", command.output)[1])  # type: ignore[index] # it is there


async def ask(
    port: int, head: str = "GET /metrics HTTP/1.1\r\nHost: localhost"
) -> tuple[str, bytes]:
    """The head and the body of an answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"{head}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join([data async for data in stream])
    head, _, body = answer.decode().partition("\r\n\r\n")
    return head, body.encode()


async def scrape(port: int) -> Samples:
    return Samples((await ask(port))[1])


async def until(port: int, **expected: float) -> Samples:
    """The samples, as soon as these are as expected. No counter may fall before that."""
    before: dict[object, float] = {}
    while True:
        samples = await scrape(port)
        assert all(samples.counted[key] >= value for key, value in before.items())
        before = samples.counted
        if all(samples(name) == value for name, value in expected.items()):
            return samples
        await trio.sleep(0.05)


class Workload:
    """What real clients have sent and received."""

    def __init__(self) -> None:
        self.messages = 0
        #: The connections, and what each had sent and received when it had said all.
        self.traffic: dict[WebSocket, tuple[int, int]] = {}

    async def talk(self, ws: WebSocket) -> int:
        """Say something. Gives the process that answers."""
        _, pid = await ws.receive_json()
        for number in range(30):
            message = "m" * (number % 200)
            await ws.send(message)
            assert await ws.receive() == message
        self.messages += 30
        self.note(ws)
        return int(pid)

    def note(self, ws: WebSocket) -> None:
        statistics = ws.statistics()
        self.traffic[ws] = (statistics.bytes_sent, statistics.bytes_received)

    @property
    def sums(self) -> dict[str, float]:
        """What the page has to say."""
        return {
            "connections_opened_total": len(self.traffic),
            "messages_received_total": self.messages,
            "messages_sent_total": self.messages + len(self.traffic),
            "received_bytes_total": sum(sent for sent, _ in self.traffic.values()),
            "sent_bytes_total": sum(received for _, received in self.traffic.values()),
        }


async def test_the_sums_are_exact_after_a_worker_was_killed_and_replaced(tmp_path: Path) -> None:
    load = Workload()
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", "--workers", "2", *ANYWHERE) as (command, url):
            port = await metrics_port(command)
            pids: set[int] = set()
            async with AsyncExitStack() as stack:
                while len(pids) < 2:
                    ws = await stack.enter_async_context(open_websocket_url(f"{url}who"))
                    pids.add(await load.talk(ws))
                await until(port, connections=len(load.traffic), **load.sums)
                victim = pids.pop()
                os.kill(victim, signal.SIGKILL)
                await command.read_until("another starts")
            survivors = 0
            for ws in [*load.traffic]:
                assert ws.close_reason is not None
                if ws.close_reason.code == 1000:  # its end is counted, and takes some bytes
                    load.note(ws)
                    survivors += 1
            more = 0
            while len(pids) < 2 or more < 10:
                async with open_websocket_url(f"{url}who") as ws:
                    pids.add(await load.talk(ws))
                load.note(ws)
                more += 1
            assert victim not in pids
            after = await until(port, connections=0, **load.sums)
            assert after.labelled("connections_closed_total") == {
                ("peer", "1000"): survivors + more
            }
            assert after.labelled("handshakes_total") == {("101",): len(load.traffic)}
            assert await command.stop(signal.SIGTERM) == 0


async def test_a_restart_keeps_what_was_counted(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", "--workers", "2", *ANYWHERE) as (command, url):
            port = await metrics_port(command)
            for round_ in (1, 2):
                async with open_websocket_url(url) as ws:
                    for _ in range(10):
                        await ws.send("hello")
                        await ws.receive()
                if round_ == 1:  # at once: what a worker that leaves has counted last is kept, too
                    command.process.send_signal(signal.SIGHUP)
                    await command.read_until("all workers are replaced")
            await until(port, connections=0, messages_sent_total=20, connections_opened_total=2)
            assert await command.stop(signal.SIGTERM) == 0


async def test_the_port_shows_metrics_to_whoever_means_it_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, "handler", *ANYWHERE) as (command, url):
        port = await metrics_port(command)
        with trio.fail_after(PATIENCE):
            async with open_websocket_url(url) as ws:
                await ws.send("hello")
                await ws.receive()
                for _ in range(2):  # of this moment, and scrapers do not count
                    samples = await scrape(port)
                    assert samples("connections") == samples("messages_sent_total") == 1
                    assert samples("http_requests_total") == samples("http_connections") == 0
            for request, status in {
                "GET /metrics HTTP/1.1\r\nHost: localhost": 200,
                f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}": 200,
                "GET /metrics?name=x HTTP/1.1\r\nHost: localhost": 200,
                "GET / HTTP/1.1\r\nHost: localhost": 404,
                "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0": 405,
                "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999": 405,
                "DELETE /metrics HTTP/1.1\r\nHost: localhost": 405,
                "GET /metrics HTTP/1.1\r\nHost: rebound.example": 421,
                "GET /metrics HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13": 404,
            }.items():
                if "Upgrade" in request:
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        data = f"{request}\r\nConnection: Upgrade\r\n\r\n".encode()
                        await stream.send_all(data)
                        head = (await stream.receive_some()).decode()
                else:
                    head, _ = await ask(port, request)
                assert head.startswith(f"HTTP/1.1 {status} "), request
            head, body = await ask(port, "HEAD /metrics HTTP/1.1\r\nHost: localhost")
            assert head.startswith("HTTP/1.1 200 ")
            assert body == b""
            assert await command.stop(signal.SIGTERM) == 0


async def test_scrapers_that_say_nothing_keep_no_other_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def read() -> Numbers:
        await trio.lowlevel.checkpoint()
        return no_numbers()

    caplog.set_level(logging.INFO)
    with trio.fail_after(PATIENCE):
        async with scraped("127.0.0.1", 0, read), AsyncExitStack() as stack:
            port = int(caplog.messages[0].rpartition(":")[2].removesuffix("/metrics"))
            for _ in range(2 * int(scraping.OPTIONS.max_connections)):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stack.enter_async_context(stream)
            assert (await ask(port))[0].startswith("HTTP/1.1 200 ")


async def test_a_port_for_metrics_that_is_taken_ends_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("async def handler(ws): pass\n", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken, trio.fail_after(PATIENCE):
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        async with running(
            "serve", "chat:handler", "--port", "0", "--metrics", where, cwd=tmp_path
        ) as command:
            assert await command.status() == 1
    assert "Address already in use; try another --metrics, or 0 for any" in command.output
    assert "Traceback" not in command.output


def test_without_prometheus_client_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "trio_ws.metrics._prometheus", raising=False)
    monkeypatch.delattr(trio_ws.metrics, "_prometheus", raising=False)
    assert run("serve", "--check", "chat:handler", "--metrics", "9464") == 1
    assert 'pip install "trio-ws[metrics]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "is not a whole number from 0 to 65535"),
        (":9464", "is not HOST:PORT, like 127.0.0.1:9464"),
        ("::1:9464", "is not HOST:PORT, like 127.0.0.1:9464"),
        ("127.0.0.1:99999", "is not a whole number from 0 to 65535"),
    ],
)
def test_a_wrong_address_is_told_in_one_line(
    address: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "chat:handler", "--metrics", address) == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------
# Boards
# ---------------------------------------------------------------------------


def numbers(place: int, value: float) -> list[float]:
    row = no_numbers()
    row[place] = value
    return row


async def test_boards_add_up_and_one_that_is_taken_down_leaves_its_counters() -> None:
    boards = Boards()
    one, other = boards.put_up(), boards.put_up()
    for value in (1, 2, 2**53):
        one.write([value] * SIZE)
        assert one.read() == [value] * SIZE
    one.write([3] * SIZE)
    other.write([4] * SIZE)
    assert await boards.read() == [7] * SIZE
    boards.take_down(one)
    total = await boards.read()
    assert total[MESSAGES_SENT.start] == 7
    assert total[CONNECTIONS.start] == 4
    boards.take_down(other)
    assert (await boards.read())[MESSAGES_SENT.start] == 7
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(one.descriptor)


async def test_a_row_that_was_being_written_when_its_worker_was_killed_does_not_count() -> None:
    boards = Boards()
    board = boards.put_up()
    board.write([1] * SIZE)

    class Killed(Exception):
        pass

    def half_a_row() -> object:
        yield from [2.0] * 5
        raise Killed

    with pytest.raises(Killed):
        board.write(half_a_row())  # type: ignore[arg-type] # it is no whole row
    assert await boards.read() == [1] * SIZE
    boards.take_down(board)


async def test_a_row_that_is_written_over_while_it_is_read_is_read_again() -> None:
    boards = Boards()
    board = boards.put_up()
    board.write([1] * SIZE)
    view: Any = board._view

    class Racing:
        """Lets the worker write two rows while the first is read."""

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, slice):
                board._view = view
                board.write([2] * SIZE)
                board.write([3] * SIZE)
            return view[index]

    board._view = Racing()  # type: ignore[assignment] # it is enough of a memoryview
    assert board.read() == [3] * SIZE
    boards.take_down(board)


def test_a_board_that_the_system_has_no_room_for_leaves_nothing_open() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    descriptors = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Boards().put_up()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_a_supervisor_of_another_version_is_not_given_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    boards = Boards()
    board = boards.put_up()
    async with measured_on_board(os.dup(board.descriptor), TABLE + 1):
        assert "the supervisor is of another version" in caplog.text
    assert board.read() == no_numbers()
    boards.take_down(board)
