"""A real Redis server for the suite: started on a free port, killed, stopped and started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from tests.helpers import free_port

HOST = "127.0.0.1"

#: For the server to start, on a busy machine.
PATIENCE = 60


class RedisServer:
    """One server, with its files in `folder`. What was acknowledged outlives a kill."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.path = folder / "redis.sock"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    async def start(self) -> None:
        assert self._process is None
        self._process = subprocess.Popen(  # noqa: ASYNC220 - and reaped as soon as it is killed
            [
                *("redis-server", "--port", str(self.port), "--bind", HOST),
                *("--unixsocket", str(self.path), "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes", "--daemonize", "no", *self._arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        with trio.fail_after(PATIENCE):
            while not await self._answers():
                assert self._process.poll() is None, "redis-server has ended at once"
                await trio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            return (await self.command("PING")).startswith((b"+PONG", b"-NOAUTH"))
        except (OSError, trio.BrokenResourceError):
            return False

    async def command(self, *words: str | bytes) -> bytes:
        """Send one command, and give the beginning of the answer as it comes."""
        encoded = [word.encode() if isinstance(word, str) else word for word in words]
        async with await trio.open_unix_socket(self.path) as stream:
            await stream.send_all(
                b"*%d\r\n" % len(encoded)
                + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
            )
            return bytes(await stream.receive_some())

    def kill(self) -> None:
        """As a crash would end it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stall(self) -> None:
        """It stays connected, and does nothing more."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def forget_everything(self) -> None:
        """Lose the data of a killed server, as one without a disk does."""
        assert self._process is None
        for path in sorted(self.folder.rglob("*"), reverse=True):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def close(self) -> None:
        if self._process is not None:
            self.kill()


@asynccontextmanager
async def run_redis(folder: Path, *arguments: str) -> AsyncGenerator[RedisServer, None]:
    server = RedisServer(folder, *arguments)
    try:
        await server.start()
        yield server
    finally:
        server.close()
