"""What systemd passes to a service, and what it is told: sockets, and messages about its state."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import pytest
import trio

from tests.command.cli_helpers import (
    APPLICATION,
    PATIENCE,
    Command,
    running,
    serving,
    socket_activate,
)
from tests.helpers import HOST, REQUEST, Options, free_port
from trio_ws import open_websocket_url
from trio_ws._command.systemd import ServiceManager

FAST = ("--grace-period", "0.3", "--close-timeout", "1")


@asynccontextmanager
async def activated(
    directory: Path, *arguments: str, listen: tuple[str, ...] = ("socket",)
) -> AsyncGenerator[Command, None]:
    """``trio-ws serve chat:…``, which systemd-socket-activate starts when a client comes."""
    (directory / "chat.py").write_text(APPLICATION, "utf-8")
    options = [word for address in listen for word in ("--listen", address)]
    starter = [*socket_activate(), *options]
    async with running("serve", *arguments, starter=starter, cwd=directory) as command:
        await command.read_until("Listening on")
        yield command


#: A client whose connection starts the service waits for that, too.
UNTIL_STARTED: Options = {"open_timeout": PATIENCE}


async def wake(path: Path) -> None:
    """Have the service started, by a client that leaves at once."""
    async with await trio.open_unix_socket(path):
        pass


# ---------------------------------------------------------------------------
# Sockets
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_all_sockets_that_systemd_passes_are_served(tmp_path: Path, workers: str) -> None:
    path, port = tmp_path / "socket", free_port()
    with trio.fail_after(PATIENCE):
        async with activated(
            *(tmp_path, "chat:handler", "--workers", workers, *FAST),
            listen=(f"{HOST}:{port}", str(path)),
        ) as command:
            url = f"ws://{HOST}:{port}/"
            async with open_websocket_url(f"{url}who", **UNTIL_STARTED) as ws:
                number, _ = await ws.receive_json()
                assert number in ([None] if workers == "1" else ["1", "2"])
            found = await command.read_until("Serving on .*")
            assert found[0].startswith(f"Serving on {url} and the Unix socket {path}")
            async with open_websocket_url("ws://localhost/", path=path, **UNTIL_STARTED) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                command.process.send_signal(signal.SIGTERM)
                assert (await ws.wait_closed()).code == 1001
            assert await command.status() == 0
    assert path.exists()


#: Starts a program as systemd does, which keeps the socket for the next one.
STARTER = """
import os, sys
descriptor, program = int(sys.argv[1]), sys.argv[2:]
if descriptor != 3:
    os.dup2(descriptor, 3)
    os.close(descriptor)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(program[0], program)
"""


@asynccontextmanager
async def started(
    directory: Path, sock: socket.socket, *arguments: str
) -> AsyncGenerator[Command, None]:
    """``trio-ws serve``, on a socket that stays open when it has ended."""
    (directory / "chat.py").write_text(APPLICATION, "utf-8")
    descriptor = sock.fileno()
    starter = [sys.executable, "-c", STARTER, str(descriptor)]
    async with running(
        *("serve", *arguments), starter=starter, cwd=directory, pass_fds=[descriptor]
    ) as command:
        await command.read_until("Serving on")
        yield command


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_service_that_systemd_restarts_loses_no_client(
    tmp_path: Path, workers: str
) -> None:
    path = tmp_path / "socket"
    arguments = ["chat:handler", "--workers", workers, *FAST]
    with trio.fail_after(PATIENCE), socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        async with started(tmp_path, sock, *arguments) as command:
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(REQUEST[:20])
                await accepted_by_all(path, int(workers))
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("SIGTERM: ")
                await trio.sleep(0.1)
                later = await trio.open_unix_socket(path)
                await later.send_all(REQUEST)
                await stream.send_all(REQUEST[20:])
                answer = b""
                while not answer.endswith(b"\x88\x02\x03\xe9"):
                    answer += await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 101 ")
                await stream.send_all(b"\x88\x82\0\0\0\0\x03\xe9")
                assert await command.status() == 0
        async with later, started(tmp_path, sock, *arguments):
            assert (await later.receive_some()).startswith(b"HTTP/1.1 101 ")


async def accepted_by_all(path: Path, workers: int) -> None:
    """Wait until every worker has accepted somebody after those who have come before."""
    numbers: set[object] = set()
    while len(numbers) < workers:
        async with open_websocket_url("ws://localhost/who", path=path, **UNTIL_STARTED) as ws:
            numbers.add((await ws.receive_json())[1])


async def test_a_service_on_a_socket_of_systemd_may_drain(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with trio.fail_after(PATIENCE):
        async with activated(
            tmp_path, "chat:handler", "--drain", "1000", *FAST, listen=(str(path),)
        ) as command:
            async with open_websocket_url("ws://localhost/", path=path, **UNTIL_STARTED) as ws:
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("SIGTERM: draining 1 connections")
                async with await trio.open_unix_socket(path) as stream:
                    await stream.send_all(REQUEST)
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
                await ws.aclose()
            assert await command.status() == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--datagram"], "is a socket of another kind: write ListenStream= in the socket unit"),
        (["--accept"], "is a connection, and no socket that listens: write Accept=no"),
    ],
)
async def test_a_socket_of_the_wrong_kind_is_said_in_one_line(
    tmp_path: Path, options: list[str], problem: str
) -> None:
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    path = str(tmp_path / "socket")
    kind = socket.SOCK_DGRAM if options == ["--datagram"] else socket.SOCK_STREAM
    with trio.fail_after(PATIENCE):
        async with running(
            *("serve", "chat:handler"),
            starter=[*socket_activate(), *options, "--listen", path],
            cwd=tmp_path,
        ) as command:
            await command.read_until("Listening on")
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.connect(path)
                client.send(b"hello")
                await command.read_until(f"trio-ws: descriptor 3, of 1 .* has passed, {problem}")
            if kind == socket.SOCK_DGRAM:
                assert await command.status() == 2
            else:  # there is a program for each client, beside the one that listens
                await command.read_until("died with code 2")


#: A program that becomes another, with variables like those of systemd.
PASSING = 'LISTEN_PID=$$ LISTEN_FDS=$0; export LISTEN_PID LISTEN_FDS; exec "$@"'


@pytest.mark.parametrize(
    ("count", "problem"),
    [
        ("x", "LISTEN_FDS should be the number of sockets, and not 'x'"),
        # A bad descriptor, or one of a file that Python has opened.
        ("2", "descriptor 3, of 2 that systemd has passed, is no socket: "),
    ],
)
async def test_a_number_of_sockets_that_does_not_fit_is_said_in_one_line(
    tmp_path: Path, count: str, problem: str
) -> None:
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    with trio.fail_after(PATIENCE):
        async with running(
            "serve", "chat:handler", starter=["sh", "-c", PASSING, count], cwd=tmp_path
        ) as command:
            assert await command.status() == 2
    assert command.output.startswith(f"trio-ws: {problem}")
    assert command.output.count("\n") == 1


@pytest.mark.parametrize("option", ["--port=0", "--host=localhost", "--unix=another"])
async def test_a_socket_of_systemd_and_an_address_are_one_too_many(
    tmp_path: Path, option: str
) -> None:
    path = tmp_path / "socket"
    with trio.fail_after(PATIENCE):
        async with activated(tmp_path, "chat:handler", option, listen=(str(path),)) as command:
            await wake(path)
            assert await command.status() == 2
    assert "systemd passes the sockets to listen on: leave --host, --port" in command.output


@pytest.mark.parametrize("variables", [{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}])
async def test_sockets_that_were_passed_to_another_program_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler") as (command, url):
            assert url
            assert await command.stop(signal.SIGTERM) == 0


#: An application that starts a program when it is imported, and has that say what it inherits.
CURIOUS = """
import json, os, subprocess

seen = subprocess.check_output(
    ["sh", "-c", "ls -l /proc/self/fd; env"], text=True, close_fds=False, stdin=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)

async def handler(ws):
    await ws.send(seen)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_what_the_application_starts_inherits_no_socket(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "socket"
    (tmp_path / "curious.py").write_text(CURIOUS, "utf-8")
    options = ["--workers", workers, *FAST]
    with trio.fail_after(PATIENCE):
        async with activated(tmp_path, "curious:handler", *options, listen=(str(path),)) as command:
            async with open_websocket_url("ws://localhost/", path=path, **UNTIL_STARTED) as ws:
                seen = str(await ws.receive())
            assert await command.stop(signal.SIGTERM) == 0
    assert "pipe:" in seen
    assert "socket:" not in seen
    assert "LISTEN_" not in seen


# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


class Listening:
    """The socket of a service manager, and what it is told."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def hear(self) -> dict[str, str]:
        """The next message: its variables and their values."""
        data = await self._sock.recv(10_000)
        return dict(line.split("=", 1) for line in data.decode().split("\n"))

    async def hear_until(self, variable: str) -> list[dict[str, str]]:
        """All messages, until one has this in it."""
        heard = [await self.hear()]
        while variable not in heard[-1]:
            heard.append(await self.hear())
        return heard


@asynccontextmanager
async def service_manager(
    monkeypatch: pytest.MonkeyPatch, address: str, watchdog: float = inf
) -> AsyncGenerator[Listening, None]:
    """A manager at this address, for all that is started within the block."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    if watchdog < inf:
        monkeypatch.setenv("WATCHDOG_USEC", str(int(watchdog * 1e6)))
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind("\0" + address[1:] if address.startswith("@") else address)
        yield Listening(sock)


@pytest.mark.parametrize("abstract", [True, False])
async def test_a_service_says_when_it_is_ready_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    address = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with trio.fail_after(PATIENCE):
        async with service_manager(monkeypatch, address) as manager:
            async with serving(tmp_path, "handler", *FAST) as (command, url):
                expected = {
                    "READY": "1",
                    "STATUS": f"Serving on {url}",
                    "MAINPID": str(command.process.pid),
                }
                assert await manager.hear() == expected
                # systemd's own program says the same.
                options = ["--ready", f"--status={expected['STATUS']}", f"--pid={os.getpid()}"]
                await trio.run_process(["systemd-notify", "--no-block", *options])
                heard = await manager.hear()
                heard.pop("MAINPIDFDID", None)  # since systemd 258
                assert heard == {**expected, "MAINPID": str(os.getpid())}
                command.process.send_signal(signal.SIGTERM)
                assert (await manager.hear())["STOPPING"] == "1"
                assert await command.status() == 0


async def test_a_supervisor_says_when_its_workers_are_ready_replaced_and_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--workers", "2", *FAST]
    with trio.fail_after(PATIENCE):
        async with service_manager(monkeypatch, str(tmp_path / "notify")) as manager:
            async with serving(tmp_path, "perhaps_hanging", *options) as (command, url):
                ready = await manager.hear()
                assert ready["READY"] == "1"
                assert ready["STATUS"] == f"Serving on {url} with 2 workers"
                assert ready["MAINPID"] == str(command.process.pid)

                (tmp_path / "hang").touch()
                command.process.send_signal(signal.SIGHUP)
                reloading = await manager.hear()
                assert reloading["RELOADING"] == "1"
                assert int(reloading["MONOTONIC_USEC"]) > 0
                await command.read_until("setting up 1")
                (tmp_path / "hang").unlink()
                command.process.send_signal(signal.SIGHUP)  # takes the place of the first
                await command.read_until("all workers are replaced")
                (tmp_path / "hang").touch()
                command.process.send_signal(signal.SIGHUP)
                await command.read_until("setting up 1")
                command.process.send_signal(signal.SIGTERM)
                said = [next(iter(message)) for message in await manager.hear_until("STOPPING")]
                assert said[-4:] == ["RELOADING", "READY", "RELOADING", "STOPPING"]
                assert said[:-4] in ([], ["READY"])
                assert await command.status() == 0


async def test_a_service_shows_life_at_twice_the_rate_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(PATIENCE):
        async with service_manager(monkeypatch, str(tmp_path / "notify"), 0.4) as manager:
            async with serving(tmp_path, "handler", *FAST) as (command, _):
                assert "READY" in await manager.hear()
                start = trio.current_time()
                for _ in range(5):
                    assert await manager.hear() == {"WATCHDOG": "1"}
                assert trio.current_time() - start > 0.8
                assert await command.stop(signal.SIGTERM) == 0


async def test_a_supervisor_shows_life_only_while_all_its_workers_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(PATIENCE):
        async with service_manager(monkeypatch, str(tmp_path / "notify"), 0.2) as manager:
            async with serving(tmp_path, "handler", "--workers", "2", *FAST) as (command, url):
                assert "READY" in (await manager.hear_until("READY"))[-1]
                await manager.hear_until("WATCHDOG")
                async with open_websocket_url(f"{url}who", **UNTIL_STARTED) as ws:
                    _, process = await ws.receive_json()
                    os.kill(process, signal.SIGSTOP)
                    quiet = False
                    while not quiet:
                        with trio.move_on_after(1) as scope:
                            await manager.hear()
                        quiet = scope.cancelled_caught
                    os.kill(process, signal.SIGCONT)
                    await manager.hear_until("WATCHDOG")
                    # While it stops there are fewer and fewer workers, as there should be.
                    command.process.send_signal(signal.SIGTERM)
                    await manager.hear_until("STOPPING")
                assert await command.status() == 0


async def test_a_watchdog_of_another_process_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"NOTIFY_SOCKET": "/somewhere", "WATCHDOG_USEC": "4000000"}
    assert ServiceManager.of(dict(asked)).watchdog == 4
    assert ServiceManager.of({**asked, "WATCHDOG_PID": str(os.getpid())}).watchdog == 4
    for others in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}):
        assert ServiceManager.of({**asked, **others}).watchdog == inf


def test_a_manager_that_cannot_be_told_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ServiceManager("/nowhere").ready("all sides")
    assert "cannot tell the service manager READY=1: No such file or directory" in caplog.text
    monkeypatch.delattr(socket, "AF_UNIX")
    ServiceManager("/nowhere").alive()
    assert "cannot tell the service manager WATCHDOG=1: " in caplog.text


async def test_a_manager_that_knows_of_the_end_hears_of_no_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    async with service_manager(monkeypatch, address) as heard:
        manager = ServiceManager(address)
        manager.stopping()
        with manager.reloading():
            pass
        manager.alive()
        assert [next(iter(await heard.hear())) for _ in range(2)] == ["STOPPING", "WATCHDOG"]


def test_a_manager_that_does_not_read_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(path)
        manager = ServiceManager(path)
        while not caplog.text:
            manager.alive()
    assert "WATCHDOG=1: Resource temporarily unavailable" in caplog.text
