"""Several processes on one port: spread, replaced, restarted and stopped; and --reload."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.command.cli_helpers import APPLICATION, PATIENCE, running, serving
from tests.helpers import HOST, REQUEST, RawPeer
from tests.whole.server_process import SLACK, SOAK, receive_status, report
from trio_ws import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    HandshakeError,
    State,
    WebSocket,
    open_websocket_url,
)
from trio_ws._command.exits import CommandFailed
from trio_ws._command.listening import bound_tcp_sockets
from trio_ws._command.workers import Crew, Worker, keep_workers, make_backoff
from trio_ws._server.listening import port_of

GRACE = 0.3
CLOSE_TIMEOUT = 1.0
FAST = (
    *("--grace-period", str(GRACE), "--close-timeout", str(CLOSE_TIMEOUT)),
    *("--start-timeout", str(PATIENCE)),
)


async def who(url: str) -> tuple[str, int]:
    """The number and the process of the worker that one connection got."""
    async with open_websocket_url(f"{url}who") as ws:
        number, process = await ws.receive_json()
        return number, process


@asynccontextmanager
async def connected_to_all(url: str, count: int) -> AsyncGenerator[dict[str, WebSocket], None]:
    """A connection to each worker, by number."""
    async with AsyncExitStack() as stack:
        found: dict[str, WebSocket] = {}
        while len(found) < count:
            async with AsyncExitStack() as attempt:
                ws = await attempt.enter_async_context(open_websocket_url(f"{url}who"))
                number, _ = await ws.receive_json()
                if number not in found:
                    found[number] = ws
                    stack.push_async_exit(attempt.pop_all())
        yield found


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def echo_once(ws: WebSocket) -> None:
    await ws.send("hello")
    assert await ws.receive() == "hello"


async def test_connections_are_spread_and_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "application", "--workers", "3", *FAST) as (command, url):
            assert " with 3 workers\n" in command.output
            async with connected_to_all(url, 3) as connections:
                assert set(connections) == {"1", "2", "3"}
                processes = dict([await who(url) for _ in range(60)])
                assert len({*processes.values(), command.process.pid}) == 4

                os.kill(processes["2"], signal.SIGKILL)
                reason = await connections["2"].wait_closed()
                assert reason.code == 1006
                await command.read_until(r"ERROR worker 2 .* ended by signal 9 .*; another starts")
                for number in ("1", "3"):
                    await echo_once(connections[number])
                await command.read_until("set up")
                async with connected_to_all(url, 3) as again:
                    await echo_once(again["2"])
                    command.process.send_signal(signal.SIGTERM)
                    for ws in again.values():
                        assert (await ws.wait_closed()).code == 1001
            assert await command.status() == 0
    assert command.output.count("tidied up") == 3
    assert "SIGTERM: stopping all workers" in command.output


async def test_sighup_replaces_all_workers_and_somebody_listens_at_every_moment(
    tmp_path: Path,
) -> None:
    async def keep_connecting(seen: Counter[int]) -> None:
        while True:
            try:
                _, process = await who(url)
            except ConnectionClosed as exc:  # it was let in just before its worker left
                assert exc.reason.code == 1001
            else:
                seen[process] += 1
            await trio.sleep(0.02)

    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", "--workers", "2", *FAST) as (command, url):
            async with connected_to_all(url, 2) as connections:
                before = dict([await who(url) for _ in range(20)])
                seen: Counter[int] = Counter()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep_connecting, seen)
                    command.process.send_signal(signal.SIGHUP)
                    await command.read_until("all workers are replaced")
                    nursery.cancel_scope.cancel()
                for ws in connections.values():
                    assert (await ws.wait_closed()).code == 1001
            after = dict([await who(url) for _ in range(20)])
            assert set(after) == {"1", "2"}
            assert not set(before.values()) & set(after.values())
            assert len(seen) > 2

            # Also where it is due to be replaced anyway.
            os.kill(after["1"], signal.SIGKILL)
            await command.read_until("another starts in 0.5 s")
            command.process.send_signal(signal.SIGHUP)
            await command.read_until("all workers are replaced")
            await trio.sleep(0.5)
            after = dict([await who(url) for _ in range(20)])
            assert set(after) == {"1", "2"}

            (tmp_path / "chat.py").write_text("import nowhere", "utf-8")
            command.process.send_signal(signal.SIGHUP)
            await command.read_until("the new worker 1 .* ended with status 1 before it was ready")
            assert dict([await who(url) for _ in range(20)]) == after
            assert await command.stop(signal.SIGINT) == 0


async def test_what_never_becomes_ready_holds_up_no_later_sighup_and_no_replacement(
    tmp_path: Path,
) -> None:
    hang = tmp_path / "hang"
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "perhaps_hanging", "--workers", "2", *FAST) as (command, url):
            before = dict([await who(url) for _ in range(20)])
            hang.touch()
            command.process.send_signal(signal.SIGHUP)
            await command.read_until("setting up 1")
            hang.unlink()
            os.kill(before["1"], signal.SIGKILL)  # whose place the one that hangs was to take
            await command.read_until("worker 1 .* ended by signal 9 .*; another starts")
            while (after := dict([await who_serves(url) for _ in range(20)])).keys() != {"1", "2"}:
                pass
            assert after["1"] != before["1"]
            assert after["2"] == before["2"]

            command.process.send_signal(signal.SIGHUP)
            await command.read_until("given up")
            await command.read_until("all workers are replaced")
            last = dict([await who(url) for _ in range(20)])
            assert set(last) == {"1", "2"}
            assert not set(last.values()) & {*before.values(), *after.values()}
            assert await command.stop(signal.SIGTERM) == 0
    assert "the running workers stay" not in command.output


async def test_a_signal_stops_even_workers_that_are_not_ready(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "perhaps_hanging", "--workers", "2", *FAST) as (command, _):
            (tmp_path / "hang").touch()
            command.process.send_signal(signal.SIGHUP)
            await command.read_until("setting up 1")
            assert await command.stop(signal.SIGTERM) == 0
    assert command.output.count("given up") == 1


async def test_workers_outlive_no_supervisor(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "application", "--workers", "2", *FAST) as (command, url):
            async with connected_to_all(url, 2) as connections:
                command.process.kill()
                for ws in connections.values():
                    assert (await ws.wait_closed()).code == 1001
            await command.status()  # when nobody has its output open any more
    assert command.output.count("tidied up") == 2
    assert "[worker 1] the supervisor is gone: closing 1 connections" in command.output


@pytest.mark.parametrize(("source", "status"), [("1 / 0", 1), ("", 2)])
async def test_workers_that_never_come_up_are_given_up_after_the_first(
    tmp_path: Path, source: str, status: int
) -> None:
    (tmp_path / "broken.py").write_text(source, "utf-8")
    with trio.fail_after(PATIENCE):
        async with running(
            "serve", "broken:x", "--port", "0", "--workers", "3", cwd=tmp_path
        ) as command:
            assert await command.status() == status
    assert command.output.count("Traceback") == status % 2
    last = command.output.splitlines()[-1]
    assert last == (
        f"trio-ws: the first worker ended with status {status} before it was ready; no more are "
        "started"
    )


async def test_a_client_that_comes_while_no_worker_runs_waits_for_the_next(tmp_path: Path) -> None:
    """And a Unix socket is shared like a port."""
    path = tmp_path / "socket"
    options = ["--workers", "2", "--unix", str(path), *FAST]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, _):
            assert f"Serving on the Unix socket {path} with 2 workers\n" in command.output
            processes: set[int] = set()
            while len(processes) < 2:
                async with open_websocket_url("ws://localhost/who", path=path) as ws:
                    processes.add((await ws.receive_json())[1])
            for process in processes:
                os.kill(process, signal.SIGSTOP)  # so that none of them accepts it
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(REQUEST)
                for process in processes:
                    os.kill(process, signal.SIGKILL)
                await command.read_until("another starts")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            assert await command.stop(signal.SIGTERM) == 0
    assert not path.exists()


async def test_clients_are_refused_as_soon_as_the_supervisor_is_asked_to_stop(
    tmp_path: Path,
) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "stubborn", "--workers", "2", *FAST) as (command, url):
            command.process.send_signal(signal.SIGTERM)
            for _ in range(2):
                await command.read_until("not ending")
            with pytest.raises(ConnectionFailed, match="refused"):
                await who(url)
            assert await command.stop(signal.SIGTERM) == 128 + signal.SIGTERM


async def test_a_second_signal_kills_workers_that_do_not_end(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "stubborn", "--workers", "2", *FAST) as (command, url):
            processes = {(await who(url))[1] for _ in range(20)}
            command.process.send_signal(signal.SIGTERM)
            await command.read_until("not ending")
            command.process.send_signal(signal.SIGHUP)  # too late
            for process in processes:  # as systemd does, and in vain
                os.kill(process, signal.SIGTERM)
            assert await command.stop(signal.SIGTERM) == 128 + signal.SIGTERM
            assert not any(map(is_running, processes))
    assert "SIGTERM again: killing the workers" in command.output


async def test_with_drain_a_signal_drains_all_workers_and_the_next_one_hurries(
    tmp_path: Path,
) -> None:
    options = ["--workers", "2", "--drain", "1000", *FAST]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "application", *options) as (command, url):
            async with connected_to_all(url, 2) as connections:
                processes = {(await who(url))[1] for _ in range(20)}
                command.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionRejected, match="503"):
                    while True:
                        await who(url)
                for process in processes:  # as systemd does, and in vain
                    os.kill(process, signal.SIGTERM)
                await trio.sleep(0.1)
                for ws in connections.values():
                    await echo_once(ws)
                command.process.send_signal(signal.SIGTERM)
                for ws in connections.values():
                    assert (await ws.wait_closed()).code == 1001
            assert await command.status() == 0
    assert "SIGTERM again: not draining any longer" in command.output
    assert command.output.count("tidied up") == 2


async def test_with_drain_a_third_signal_kills_the_workers(tmp_path: Path) -> None:
    options = ["--workers", "2", "--drain", "1000", *FAST]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "stubborn", *options) as (command, url):
            async with connected_to_all(url, 2):
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("stopping all workers")
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("not ending")
            assert await command.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "SIGTERM again: killing the workers" in command.output


async def test_a_worker_that_is_replaced_drains_and_turns_nobody_away(tmp_path: Path) -> None:
    options = ["--workers", "2", "--drain", "1.5", *FAST]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, url):
            async with connected_to_all(url, 2) as connections:
                before = {(await who(url))[1] for _ in range(20)}
                command.process.send_signal(signal.SIGHUP)
                # The first worker to go has nobody else; its one client is closed when time is up.
                first = connections["1"]
                while first.state is State.OPEN:
                    with suppress(ConnectionClosed):  # it was let in just before its worker left
                        await who(url)
                    await trio.sleep(0.02)
                assert (await first.wait_closed()).code == 1012
                assert (await connections["2"].wait_closed()).code == 1012
                await command.read_until("all workers are replaced")
            after = {(await who(url))[1] for _ in range(20)}
            assert not before & after
            assert await command.stop(signal.SIGTERM) == 0


# ---------------------------------------------------------------------------
# The supervisor, from within
# ---------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_a_worker_that_does_not_end_in_time_is_killed(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tend(crew: Crew) -> None:
        assert await (await crew.start(1)).wait_ready()
        signal.raise_signal(signal.SIGTERM)

    with trio.fail_after(PATIENCE):
        async with bound_tcp_sockets([HOST], 0) as sockets:
            crew = Crew(["chat:stubborn", "--host", HOST], sockets, patience=0.2)
            assert await crew.run(tend) == 1
    assert "did not stop in 0.2 s: killing it" in caplog.text


async def test_a_worker_that_is_not_ready_in_time_is_stopped(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bound_tcp_sockets([HOST], 0) as sockets:
        crew = Crew(["chat:hanging", "--host", HOST], sockets, patience=PATIENCE, start_timeout=0.5)
        with trio.fail_after(PATIENCE):
            with pytest.raises(CommandFailed) as caught:
                await crew.run(keep_workers(2, ""))
    assert str(caught.value) == "the first worker was not ready in time; no more are started"
    assert caught.value.status == 1
    assert "was not ready within 0.5 s: stopping it" in caplog.text


async def test_a_successor_that_is_not_ready_in_time_is_given_up_and_sighup_works_again(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The time is changed in between: nobody knows how long a process takes that does not hang."""

    async def tend(crew: Crew) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_workers(1, url), crew)
            first = await process_of(url)
            crew.start_timeout = 0.5
            (directory / "hang").touch()
            signal.raise_signal(signal.SIGHUP)
            await logged(caplog, "new worker 1 .* was not ready in time; the running workers stay")
            assert await process_of(url) == first

            crew.start_timeout = PATIENCE
            (directory / "hang").unlink()
            signal.raise_signal(signal.SIGHUP)
            await logged(caplog, "all workers are replaced")
            assert await process_of(url) != first
            signal.raise_signal(signal.SIGTERM)

    caplog.set_level("INFO")
    async with bound_tcp_sockets([HOST], 0) as sockets:
        url = f"ws://{HOST}:{port_of(sockets)}/"
        arguments = ["chat:perhaps_hanging", "--host", HOST]
        crew = Crew(arguments, sockets, patience=PATIENCE)
        with trio.fail_after(PATIENCE):
            assert await crew.run(tend, [signal.SIGHUP]) == 0


async def process_of(url: str) -> int:
    return (await who_serves(url))[1]


async def who_serves(url: str) -> tuple[str, int]:
    """`who`, as soon as somebody listens there."""
    while True:
        try:
            return await who(url)
        except (ConnectionClosed, HandshakeError):  # killed after it had accepted, among them
            await trio.sleep(0.02)


async def logged(caplog: pytest.LogCaptureFixture, pattern: str) -> None:
    while not re.search(pattern, caplog.text):
        await trio.sleep(0.02)


async def test_a_worker_that_is_replaced_before_another_has_started_is_one_worker(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = 0
    second, may_start = trio.Event(), trio.Event()
    start = Crew.start

    async def start_slowly(crew: Crew, number: int) -> Worker:
        nonlocal starts
        starts += 1
        if starts == 2:
            second.set()
            await may_start.wait()
        return await start(crew, number)

    async def tend(crew: Crew) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_workers(1, url), crew)
            os.kill(await process_of(url), signal.SIGKILL)
            await second.wait()
            signal.raise_signal(signal.SIGHUP)
            await logged(caplog, "all workers are replaced")
            (successor,) = crew.workers
            may_start.set()
            while caplog.text.count("stopping worker 1") < 2 or len(crew.workers) > 1:
                await trio.sleep(0.02)
            assert [*crew.workers] == [successor]
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Crew, "start", start_slowly)
    caplog.set_level("DEBUG", "trio_ws.serve")
    async with bound_tcp_sockets([HOST], 0) as sockets:
        url = f"ws://{HOST}:{port_of(sockets)}/"
        crew = Crew(["chat:handler", "--host", HOST], sockets, patience=PATIENCE)
        with trio.fail_after(PATIENCE):
            assert await crew.run(tend, [signal.SIGHUP]) == 0


async def test_one_restart_that_is_due_is_enough() -> None:
    async def tend(crew: Crew) -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
        crew.restarts.receive_nowait()
        with pytest.raises(trio.WouldBlock):
            crew.restarts.receive_nowait()
        signal.raise_signal(signal.SIGTERM)

    assert await Crew([], [], patience=1).run(tend, [signal.SIGHUP]) == 0


async def test_where_there_is_no_room_for_a_process_it_is_tried_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    python = sys.executable

    async def tend(crew: Crew) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_workers(2, url), crew)
            # Both, since it is an error that ends all where the second cannot be started at first.
            processes = await both_processes()
            monkeypatch.setattr(sys, "executable", str(directory / "python"))
            os.kill(processes["1"], signal.SIGKILL)
            while "trying again" not in caplog.text:
                await trio.sleep(0.02)
            monkeypatch.setattr(sys, "executable", python)
            await both_processes()
            signal.raise_signal(signal.SIGTERM)

    async def both_processes() -> dict[str, int]:
        processes: dict[str, int] = {}
        while len(processes) < 2:
            processes |= [await who_serves(url)]
            await trio.sleep(0.02)
        return processes

    with trio.fail_after(PATIENCE):
        async with bound_tcp_sockets([HOST], 0) as sockets:
            url = f"ws://{HOST}:{port_of(sockets)}/"
            crew = Crew(["chat:handler", "--host", HOST], sockets, patience=PATIENCE)
            assert await crew.run(tend) == 0
    assert "cannot start worker" in caplog.text


async def test_where_there_is_no_room_for_the_first_process_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(CommandFailed, match="worker 1: No such file .*: '/nowhere/python'"):
        await Crew(["chat:handler"], [], patience=1).run(keep_workers(2, ""))


def test_a_worker_that_fails_soon_waits_longer_each_time() -> None:
    backoff = make_backoff()
    assert [backoff.delay(1.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.delay(10.0) == 0.0
    assert backoff.delay(-inf) == 0.5


# ---------------------------------------------------------------------------
# --reload
# ---------------------------------------------------------------------------


def write_greeting(directory: Path, greeting: str) -> None:
    (directory / "greeting.py").write_text(
        f"async def handler(ws):\n    await ws.send({greeting})\n", "utf-8"
    )


async def greeting(url: str, path: Path | None = None) -> object:
    async with open_websocket_url(url, path=path) as ws:
        return await ws.receive()


async def test_a_change_is_picked_up(tmp_path: Path) -> None:
    write_greeting(tmp_path, "'one'")
    (tmp_path / "venv").mkdir()
    for name in ("venv/pyvenv.cfg", "venv/package.py", "notes.txt"):
        (tmp_path / name).touch()
    with trio.fail_after(PATIENCE):
        async with running(
            "serve", "greeting:handler", "--reload", "--port", "0", *FAST, cwd=tmp_path
        ) as command:
            (url, *_) = await command.urls()
            assert await greeting(url) == "one"

            for name in ("venv/package.py", "notes.txt"):  # of no interest
                (tmp_path / name).write_text("changed")
            write_greeting(tmp_path, "'two' +")
            await command.read_until("greeting.py changed: starting again")
            await command.read_until("SyntaxError")
            await command.read_until(
                "ended with status 1 before it was ready; waiting for a change"
            )

            # Who comes now is not refused, but waits for the next process.
            host, port = url.removeprefix("ws://").rstrip("/").rsplit(":", 1)
            async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
                await stream.send_all(REQUEST)
                write_greeting(tmp_path, "'three'")
                assert await command.urls() == [url]
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            assert await greeting(url) == "three"
            assert await command.stop(signal.SIGINT) == 0
    assert "package.py" not in command.output


async def test_a_new_file_is_a_change_and_a_unix_socket_is_taken_over(tmp_path: Path) -> None:
    write_greeting(tmp_path, "'one'")
    with trio.fail_after(PATIENCE):
        async with running(
            "serve", "greeting:handler", "--reload", "--unix", "socket", *FAST, cwd=tmp_path
        ) as command:
            await command.urls()
            (tmp_path / "new.py").touch()
            await command.read_until("new.py changed: starting again")
            await command.urls()
            assert await greeting("ws://localhost", path=tmp_path / "socket") == "one"
            assert await command.stop(signal.SIGINT) == 0


# ---------------------------------------------------------------------------
# Trust
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "workers"])
async def test_sigterm_with_a_thousand_clients_says_1001_to_all(
    tmp_path: Path, options: list[str]
) -> None:
    """A tenth of the handlers never ends by itself, and a tenth of the clients never answers."""
    clients = 1000 if SOAK else 200
    codes: list[int | None] = []

    async def be_client(peer: RawPeer, number: int) -> None:
        codes.append(await peer.receive_close())
        if number % 10 != 1:
            await peer.send_close(1001)
        assert await peer.receive_all_frames() == []
        await peer.stream.aclose()

    async def connect(port: int, path: str) -> RawPeer:
        peer = RawPeer(await trio.open_tcp_stream(HOST, port), masks=True)
        await peer.send(REQUEST.replace(b"/chat", path.encode()))
        assert await receive_status(peer) == 101
        return peer

    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options, *FAST) as (command, url):
            port = int(url.rpartition(":")[2].strip("/"))
            peers = [
                await connect(port, "/" if number % 10 else "/slow") for number in range(clients)
            ]
            async with trio.open_nursery() as nursery:
                for number, peer in enumerate(peers):
                    nursery.start_soon(be_client, peer, number)
                await trio.sleep(0.2)  # all handlers have begun
                start = time.perf_counter()
                status = await command.stop(signal.SIGTERM)
                took = time.perf_counter() - start
    report(took=f"{took:.2f} s")
    assert status == 0
    assert codes == [1001] * clients
    assert took < GRACE + CLOSE_TIMEOUT + SLACK
