"""Opens a WebSocket through an SSH server, or through any command that relays bytes.

`ssh -W host:port gateway` connects to a host and port that the gateway can reach, and relays
between that and its own input and output. No SSH library is needed, and keys, agents and
`~/.ssh/config` work as ever.
"""

import argparse
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from subprocess import PIPE

import trio

from trio_ws import wrap_client_stream


@asynccontextmanager
async def open_command(*command: str) -> AsyncGenerator[trio.abc.Stream, None]:
    """A stream over the input and output of a command, which ends with the block."""
    process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield trio.StapledStream(process.stdin, process.stdout)
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(1):
                await process.stdin.aclose()
                await process.wait()
            process.kill()
            await process.wait()
            await process.stdout.aclose()


async def main(url: str, *command: str) -> None:
    async with open_command(*command) as stream, wrap_client_stream(stream, url) as ws:
        await ws.send("Hello world!")
        print(await ws.receive())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8765/")
    parser.add_argument(
        "command", nargs="+", help="for example: -- ssh -T -W localhost:8765 gateway"
    )
    arguments = parser.parse_args()
    trio.run(main, arguments.url, *arguments.command)
