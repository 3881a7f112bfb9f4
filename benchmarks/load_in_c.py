"""The load in C, `load.c`: built when it is first needed, started, told what to do."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load import Endpoint, LoadFailed

SOURCE = Path(__file__).with_name("load.c")
BUILT = Path(__file__).parents[1] / ".tools" / "benchmarks"


def build(*, tls: bool = False) -> Path | None:
    """The program, made anew if it is older than its source; nothing where it cannot be made.

    It needs a C compiler and epoll, and for TLS OpenSSL's headers.
    """
    compiler = shutil.which("cc")
    if compiler is None or not hasattr(select, "epoll"):
        return None
    program = BUILT / ("load-tls" if tls else "load")
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as folder:
        fresh = Path(folder) / program.name
        options = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
        command = [compiler, "-std=c11", "-O2", "-o", str(fresh), str(SOURCE), *options]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        return fresh.replace(program)


class LoadInC:
    """The program, running, with its connections open."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = str(process.pid)

    def ask(self, seconds: float) -> dict[str, Any]:
        """Have it send for so long, and return its measurements."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n".encode())
        self._process.stdin.flush()
        seen: dict[str, Any] = json.loads(self.read())
        return seen

    def run(self, seconds: float) -> float:
        """Go on for that long; how many messages a second came."""
        seen = self.ask(seconds)
        rate: float = seen["messages"] / seen["seconds"]
        return rate

    def read(self) -> bytes:
        """The next line that it says."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise LoadFailed
        return line


@contextmanager
def open_load_in_c(
    program: Path,
    endpoint: Endpoint,
    frame: bytes,
    reply_size: int,
    *,
    connections: int = 1,
    rate: float = 0,
    in_flight: int = 1,
) -> Iterator[LoadInC]:
    """With a rate, so many messages a second on each connection; or else so many in flight."""
    request = endpoint.request
    numbers = (
        *(endpoint.port, connections, rate, in_flight),
        *(len(request), len(frame), reply_size),
    )
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            [program, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        assert process.stdin
        try:
            process.stdin.write(request + frame)
            process.stdin.flush()
            load = LoadInC(process)
            load.read()
            yield load
        except (BrokenPipeError, LoadFailed):
            complaints.seek(0)
            raise LoadFailed(complaints.read().decode().strip() or "the load ended") from None
        finally:
            process.kill()
