"""Large files: they arrive as they were sent, in little memory, and nothing is left of a half."""

from __future__ import annotations

import json
import re
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.examples.scripts import EXAMPLES, PATIENCE, output_of, running
from tests.helpers import open_server
from trio_ws import ConnectionLost, WebSocket, open_websocket_url

SCRIPT = "files/transfer.py"
SIZE = 64 * 2**20
OPTIONS: Any = {"max_message_size": SIZE, "compression": None}


@pytest.fixture(scope="module")
def transfer() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / SCRIPT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "kept"
    path.mkdir()
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that differs all along, and takes no time to make."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for number in range(0, SIZE, 2**20):
            file.seek(number)
            file.write(b"%d" % number)
        file.truncate(SIZE)
    return path


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had in memory at once."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    return int(kilobytes) * 1024


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """What is in the files of a folder, hidden ones included."""
    return {each.name: each.read_bytes() for each in folder.glob(pattern)}


async def test_a_large_file_goes_both_ways_in_little_memory_and_tells_its_progress(
    folder: Path, large: Path, tmp_path: Path
) -> None:
    tenths = [f"{each} %" for each in range(10, 110, 10)]
    with trio.fail_after(PATIENCE):
        async with running(SCRIPT, "serve", "--port", "0", "--folder", str(folder)) as server:
            url = (await server.read_line()).split()[2]
            before = peak_memory(server.process.pid)
            put = await output_of(SCRIPT, "put", url, str(large))
            assert put == [*tenths, "kept as large.bin"]
            here = tmp_path / "here"
            here.mkdir()
            got = await output_of(SCRIPT, "get", url, "large.bin", "--folder", str(here))
            assert got == [*tenths, "saved as large.bin"]
            assert peak_memory(server.process.pid) - before < SIZE / 8
            assert await server.interrupt() == []
    expected = contents(large.parent, "large.bin")
    assert contents(folder) == contents(here) == expected


async def test_a_reader_that_is_slow_makes_the_sender_wait(
    transfer: dict[str, Any], large: Path
) -> None:
    async def read_a_little(ws: WebSocket) -> None:
        await ws.receive_json()
        async with ws.receive_message() as chunks:
            async for _ in chunks:
                await trio.sleep_forever()

    sent = 0

    def progress(done: int, size: int) -> None:
        nonlocal sent
        sent = done

    async with (
        open_server(read_a_little, grace_period=0.1, **OPTIONS) as server,
        open_websocket_url(server.urls[0], close_timeout=0.1) as ws,
    ):
        with trio.move_on_after(1):
            await transfer["send_file"](ws, large, progress)
    assert 0 < sent < SIZE / 2


@pytest.mark.parametrize("kept", [False, True])
async def test_nothing_is_left_of_a_file_whose_sender_was_cancelled(
    transfer: dict[str, Any], folder: Path, large: Path, kept: bool
) -> None:
    ended = trio.Event()

    async def keep(ws: WebSocket) -> None:
        try:
            await transfer["keep"](folder, ws)
        finally:
            ended.set()

    if kept:  # an older file of that name
        (folder / large.name).write_bytes(b"older")
    with trio.fail_after(PATIENCE):
        async with open_server(keep, **OPTIONS) as server:
            with trio.CancelScope() as scope:

                def stop(done: int, size: int) -> None:
                    if done > size / 2:
                        scope.cancel()

                async with open_websocket_url(server.urls[0]) as ws:
                    await transfer["send_file"](ws, large, stop)
            assert scope.cancelled_caught
            await ended.wait()
            async with open_websocket_url(server.urls[0]) as ws:  # the server goes on
                assert await ws.ping() > 0
    assert contents(folder) == ({large.name: b"older"} if kept else {})


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"name": "a", "size": 5 * 2**30}], "a file has at most 4294967296 bytes"),
        ([{"name": "../a", "size": 1}], "'../a' is no name for a file"),
        ([{"name": "", "size": 1}], "'' is no name for a file"),
        ([{"name": "..", "size": 1}], "'..' is no name for a file"),
        ([{"name": ".a", "size": 1}], "'.a' is no name for a file"),
        ([{"name": "a"}], "there is no such file"),
        ([{"name": "a", "size": 1}, b"ab"], "this is not the file that was announced"),
        ([{"name": "a", "size": 1}, "a"], "this is not the file that was announced"),
        ([{"name": "a", "size": 2}, b"a"], "the file did not arrive as it was sent"),
        (
            [{"name": "a", "size": 1}, b"a", {"sha256": ""}],
            "the file did not arrive as it was sent",
        ),
        ([b"a" * 5000], "say what is to come first"),
        ([7], "'int' object is not iterable"),
    ],
)
async def test_what_is_no_file_is_refused_and_nothing_is_left(
    transfer: dict[str, Any], folder: Path, messages: list[Any], why: str
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_server(partial(transfer["keep"], folder)) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                for message in messages:
                    is_data = isinstance(message, (str, bytes))
                    await ws.send(message if is_data else json.dumps(message))
                with pytest.raises(ConnectionLost) as caught:
                    await ws.receive()
    assert (caught.value.reason.code, caught.value.reason.reason) == (1008, why)
    assert contents(folder) == {}
