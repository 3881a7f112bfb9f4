"""Large files over a WebSocket, both ways: a server that keeps them, and a client.

python transfer.py serve --folder kept
python transfer.py put ws://localhost:8765/ video.mp4
python transfer.py get ws://localhost:8765/ video.mp4 --folder here
"""

import argparse
import hashlib
import json
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import trio

from trio_ws import CloseCode, WebSocket, WebSocketServer, open_websocket_url, serve_websocket

#: Bytes in a fragment. Each costs a trip to a thread that reads the file.
CHUNK = 256 * 1024
#: The largest file that is taken.
LIMIT = 4 * 1024**3

#: Called with the bytes that are through, and with the size.
Progress = Callable[[int, int], None]


async def send_file(ws: WebSocket, path: Path, progress: Progress) -> None:
    """Announce a file, send it as one message in fragments, and say what its hash is."""
    size, done = (await trio.Path(path).stat()).st_size, 0
    digest = hashlib.sha256()
    async with await trio.open_file(path, "rb") as file:
        await ws.send_json({"name": path.name, "size": size})
        async with ws.open_message("binary") as message:
            while chunk := await file.read(CHUNK):
                await message.send(chunk)  # waits while the peer takes no more
                digest.update(chunk)
                done += len(chunk)
                progress(done, size)
    await ws.send_json({"sha256": digest.hexdigest()})


async def receive_file(
    ws: WebSocket, announced: dict[str, Any], folder: Path, progress: Progress
) -> Path:
    """Take the file that was announced. It is in `folder` when all of it is there, and right.

    Raises:
        ValueError: it is too large, or did not arrive as it was sent. Nothing is left of it.
    """
    name, size, done = plain_name(announced), int(announced["size"]), 0
    if size > LIMIT:
        raise ValueError(f"a file has at most {LIMIT} bytes")
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as aside:
        path = trio.Path(aside, name)
        async with await path.open("wb") as file, ws.receive_message() as chunks:
            async for chunk in chunks:
                if isinstance(chunk, str) or done + len(chunk) > size:
                    raise ValueError("this is not the file that was announced")
                await file.write(chunk)  # meanwhile no more is read, and the peer waits
                digest.update(chunk)
                done += len(chunk)
                progress(done, size)
        if done != size or (await receive_small(ws))["sha256"] != digest.hexdigest():
            raise ValueError("the file did not arrive as it was sent")
        return Path(await path.replace(folder / name))


async def receive_small(ws: WebSocket) -> dict[str, Any]:
    """An object in JSON. `receive_json` would hold as much as `max_message_size`, that of files."""
    text = ""
    async with ws.receive_message() as pieces:
        async for piece in pieces:
            text += str(piece, "utf-8") if isinstance(piece, bytes) else piece
            if len(text) > 4096:
                raise ValueError("say what is to come first")
    return dict(json.loads(text))  # anything but an object is an error


def plain_name(announced: dict[str, Any]) -> str:
    """The name of a file, and no path that leads elsewhere."""
    name = str(announced["name"])
    if not name or name != PurePath(name).name or name.startswith("."):
        raise ValueError(f"{name[:40]!r} is no name for a file")
    return name


async def keep(folder: Path, ws: WebSocket) -> None:
    """The server's side: clients put files into a folder, and get them from there."""
    try:
        while True:  # until the client has gone
            request = await receive_small(ws)
            if "size" in request:
                path = await receive_file(ws, request, folder, nothing)
                await ws.send_json({"kept": path.name})
            else:
                await send_file(ws, folder / plain_name(request), nothing)
    except FileNotFoundError:
        await ws.aclose(CloseCode.POLICY_VIOLATION, "there is no such file")
    except (ValueError, TypeError, KeyError) as exc:
        await ws.aclose(CloseCode.POLICY_VIOLATION, str(exc)[:100])


async def put(url: str, path: Path) -> None:
    async with open_websocket_url(url, compression=None) as ws:
        await send_file(ws, path, percent())
        print("kept as", (await ws.receive_json())["kept"])


async def get(url: str, name: str, folder: Path) -> None:
    async with open_websocket_url(url, max_message_size=LIMIT, compression=None) as ws:
        await ws.send_json({"name": name})
        path = await receive_file(ws, await receive_small(ws), folder, percent())
        print("saved as", path.name)


def percent() -> Progress:
    """A function that prints how far a file is, in steps of a tenth."""
    tenths = 0

    def show(done: int, size: int) -> None:
        nonlocal tenths
        if done * 10 // size > tenths:
            tenths = done * 10 // size
            print(f"{tenths * 10} %", flush=True)

    return show


def nothing(done: int, size: int) -> None:
    """Where nobody watches the progress."""


async def serve(port: int, folder: Path) -> None:
    handler = partial(keep, folder)
    serving = partial(
        serve_websocket, handler, "localhost", port, max_message_size=LIMIT, compression=None
    )
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serving)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser("serve")
    serve_parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    put_parser = commands.add_parser("put")
    get_parser = commands.add_parser("get")
    for each in (put_parser, get_parser):
        each.add_argument("url")
        each.add_argument("name")
    for each in (serve_parser, get_parser):
        each.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    if arguments.command == "serve":
        trio.run(serve, arguments.port, arguments.folder)
    elif arguments.command == "put":
        trio.run(put, arguments.url, Path(arguments.name))
    else:
        trio.run(get, arguments.url, arguments.name, arguments.folder)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        main()
    except* KeyboardInterrupt:
        pass
