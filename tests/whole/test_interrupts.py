"""Ctrl-C at awkward moments: at the k-th line that the package runs, for many k.

Each moment gets a process of its own, forked from one that has everything imported. It runs a
client or a server over TCP, with the other end in a thread; a trace function counts the lines of
the package and raises SIGINT at the k-th. The interrupt has to come out of `trio.run` bare and
soon, wherever it struck: no hang, no broken nursery, no interrupt that nobody ever sees.

Started as a program (`python -m tests.whole.test_interrupts client 5`), it tries every fifth moment
and prints one JSON line for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import trio_ws
from tests.helpers import HOST
from trio_ws import WebSocket
from trio_ws._connection.reading import FIRST_PAUSE

#: Whose lines are counted: the package's, and those of contextlib that it or a user gets into.
PACKAGE = str(Path(trio_ws.__file__).parent) + os.sep
CALLERS = (PACKAGE, __file__)

#: How many seconds an interrupted program has, and how many of them run at a time. It must not
#: wait for `open_timeout` or `close_timeout`, which are 10.
PROMPT = 8.0
AT_A_TIME = 4

#: Every how manieth line is tried in the suite. Primes, so that loops are not hit in step.
STEPS = {
    "client": 7,
    "client's nursery": 13,
    "quick client": 19,
    "server": 7,
    "client over a stream": 11,
    "server over a stream": 11,
}

Result = dict[str, Any]


@pytest.mark.parametrize("scenario", STEPS)
def test_ctrl_c_anywhere_ends_the_program_with_a_bare_keyboard_interrupt(scenario: str) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COVERAGE_")  # whose trace function ours would replace
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.whole.test_interrupts", scenario, str(STEPS[scenario])],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    results: list[Result] = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(results) > 60, "the scenario is shorter than it was"
    wrong = [result for result in results if not as_expected(result, scenario)]
    assert not wrong, "\n" + "\n".join(map(repr, wrong))


def as_expected(result: Result, scenario: str) -> bool:
    bare = ["KeyboardInterrupt"]
    # Within `WebSocket.open_nursery`, as within trio's own, everything comes out in a group.
    allowed = [bare, ["BaseExceptionGroup", *bare]] if scenario == "client's nursery" else [bare]
    return result["out"] in allowed and not result["noise"] and result["seconds"] < PROMPT


# ---------------------------------------------------------------------------
# The program
# ---------------------------------------------------------------------------


async def run_client(sock: socket.socket) -> None:
    host, port = sock.getsockname()
    async with trio_ws.open_websocket_url(f"ws://{host}:{port}/") as websocket:
        await websocket.send("x" * 2000)
        assert await websocket.receive() == "x" * 2000
        async with websocket.open_message("text") as writer:
            await writer.send("a part")
        async with websocket.receive_message() as reader:
            async for _piece in reader:
                pass
        await websocket.ping()


async def run_client_with_nursery(sock: socket.socket) -> None:
    host, port = sock.getsockname()
    async with trio_ws.open_websocket_url(f"ws://{host}:{port}/") as websocket:
        async with websocket.open_nursery() as nursery:
            nursery.start_soon(websocket.send, "x")
            nursery.start_soon(websocket.receive)
            await websocket.ping()
        await websocket.send("y")
        await websocket.receive()


async def run_quick_client(sock: socket.socket) -> None:
    host, port = sock.getsockname()
    async with trio_ws.open_websocket_url(f"ws://{host}:{port}/") as websocket:
        for _ in range(FIRST_PAUSE + 8):
            await websocket.send("x")
            assert await websocket.receive() == "x"


async def run_client_over_stream(sock: socket.socket) -> None:
    stream = await trio.open_tcp_stream(*sock.getsockname())
    async with trio_ws.wrap_client_stream(stream, "ws://example.org/") as websocket:
        await websocket.send("x")
        await websocket.receive()


async def run_server_over_stream(sock: socket.socket) -> None:
    async with trio.SocketListener(trio.socket.from_stdlib_socket(sock)) as listener:
        stream = await listener.accept()
    async with trio_ws.wrap_server_stream(stream) as websocket:
        await echo(websocket)


async def run_server(sock: socket.socket) -> None:
    async def handler(websocket: WebSocket) -> None:
        await echo(websocket)
        stop.cancel()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    with trio.CancelScope() as stop:
        await trio_ws.serve_listeners(handler, [listener], grace_period=1)


async def echo(websocket: WebSocket) -> None:
    async for message in websocket:
        await websocket.send(message)


async def be_server(sock: socket.socket) -> None:
    """The other end of a client: whatever becomes of it is not looked at."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    stream = await listener.accept()
    async with trio_ws.wrap_server_stream(stream) as websocket:
        await echo(websocket)


async def be_client(sock: socket.socket) -> None:
    host, port = sock.getsockname()
    async with trio_ws.open_websocket_url(f"ws://{host}:{port}/") as websocket:
        await websocket.send("x" * 2000)
        await websocket.receive()
        await websocket.ping()


Side = Callable[[socket.socket], Coroutine[Any, Any, None]]

SCENARIOS: dict[str, tuple[Side, Side]] = {
    "client": (run_client, be_server),
    "client's nursery": (run_client_with_nursery, be_server),
    "quick client": (run_quick_client, be_server),
    "server": (run_server, be_client),
    "client over a stream": (run_client_over_stream, be_server),
    "server over a stream": (run_server_over_stream, be_client),
}


def run_interrupted(scenario: str, moment: int, report: int) -> None:
    """In a separate process: run, be interrupted, and report."""
    ours, theirs = SCENARIOS[scenario]
    sock = socket.create_server((HOST, 0))
    threading.Thread(target=run_quietly, args=(theirs, sock.dup()), daemon=True).start()
    lines = 0
    struck = ""
    noise: list[str] = []
    started = time.monotonic()

    def finish(out: list[str], detail: str) -> None:
        seconds = time.monotonic() - started
        result = {"moment": moment, "at": struck, "out": out, "detail": detail}
        result |= {"noise": noise, "seconds": round(seconds, 3)}
        os.write(report, json.dumps(result).encode() + b"\n")
        os._exit(0)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines, struck, started
        name = frame.f_code.co_filename
        if not is_counted(frame, name):
            return None
        if event == "line":
            lines += 1
            if lines == moment:
                where = f"{Path(name).name}:{frame.f_lineno}"
                struck = f"{where} {frame.f_code.co_qualname}"
                sys.settrace(None)
                started = time.monotonic()
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.unraisablehook = lambda raised: noise.append(repr(raised.exc_value))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored until here
    signal.signal(signal.SIGALRM, lambda *_: finish(["hang"], ""))
    signal.setitimer(signal.ITIMER_REAL, PROMPT + 1)
    out: list[str] = []
    detail = ""
    sys.settrace(trace)
    try:
        trio.run(ours, sock)
    except BaseException as exc:
        out, detail = kinds(exc), repr(exc)
    sys.settrace(None)
    finish(out, detail)


def is_counted(frame: FrameType, name: str) -> bool:
    if name != contextlib.__file__:
        return name.startswith(PACKAGE)
    caller = frame.f_back
    while caller is not None and caller.f_code.co_filename == name:
        caller = caller.f_back
    return caller is not None and caller.f_code.co_filename.startswith(CALLERS)


def kinds(exc: BaseException) -> list[str]:
    """The name of an exception, and of those in it."""
    if not isinstance(exc, BaseExceptionGroup):
        return [type(exc).__name__]
    return [type(exc).__name__, *sorted({kind for leaf in exc.exceptions for kind in kinds(leaf)})]


def run_quietly(side: Side, sock: socket.socket) -> None:
    try:
        trio.run(side, sock)
    except BaseException:
        sock.close()


def try_moments(scenario: str, step: int) -> None:
    """Every `step`-th moment until the scenario is over before it comes."""
    running: dict[int, int] = {}
    moment, over = 1, False
    with selectors.DefaultSelector() as selector:
        while running or not over:
            while not over and len(running) < AT_A_TIME:
                reading, writing = os.pipe()
                child = os.fork()
                if child == 0:
                    try:
                        run_interrupted(scenario, moment, writing)
                    finally:
                        os._exit(1)
                os.close(writing)
                running[reading] = child
                selector.register(reading, selectors.EVENT_READ)
                moment += step
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                selector.unregister(key.fd)
                os.close(key.fd)
                os.waitpid(running.pop(key.fd), 0)
                result: Result = json.loads(data or b'{"at": "?", "out": ["crash"], "noise": []}')
                if result["at"]:
                    print(json.dumps(result), flush=True)  # noqa: T201 - its result
                else:
                    assert result["out"] == [], result
                    over = True


if __name__ == "__main__":
    try_moments(sys.argv[1], int(sys.argv[2]))
