"""The application that docs/how-to/deployment.md shows, and every command line in the pages."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from examples.deploy import app
from tests.command.cli_helpers import PATIENCE, running
from tests.helpers import HOST
from tests.project.pages import PAGES, ROOT
from trio_ws import Handler, WebSocketServer, open_websocket_url, serve_websocket
from trio_ws._command.cli import make_parser

EXAMPLE = ROOT / "examples" / "deploy"


async def test_the_application_runs_in_several_processes() -> None:
    with trio.fail_after(PATIENCE):
        async with running(
            "serve", "app:application", "--port", "0", "--workers", "2", cwd=EXAMPLE
        ) as command:
            (url, *_) = await command.urls()
            async with open_websocket_url(url) as ws:
                await ws.send("hello")
                assert re.fullmatch(r"worker [12], up for \d+ s: hello", str(await ws.receive()))
            assert await command.stop(signal.SIGTERM) == 0


async def test_the_application_runs_without_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, starts = trio.open_memory_channel[WebSocketServer](1)

    async def serve_elsewhere(handler: Handler, host: str, port: int) -> None:
        assert (host, port) == ("localhost", 8765)  # which may be taken here
        async with trio.open_nursery() as nursery:
            started.send_nowait(await nursery.start(serve_websocket, handler, HOST, 0))

    monkeypatch.setattr(app, "serve_websocket", serve_elsewhere)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.main)
            server = await starts.receive()
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.send("hello")
                assert await ws.receive() == "worker alone, up for 0 s: hello"
            nursery.cancel_scope.cancel()


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in ("chat.socket", "chat.service"):
        unit = (EXAMPLE / name).read_text("utf-8")
        # It looks for the programs, too.
        unit = re.sub("^(Exec.*?)=.*", r"\1=/bin/true", unit, flags=re.MULTILINE)
        (tmp_path / name).write_text(unit, "utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "chat.service", tmp_path / "chat.socket"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "chat" not in verified.stdout + verified.stderr  # a line about one of them


def test_every_command_line_shown_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "credentials": "me:secret",
        "token": "abc",
        "headers": "A: b",
        "proxy": "http://me:secret@proxy.example",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, "utf-8")
    monkeypatch.chdir(tmp_path)
    page = "\n".join(each.read_text("utf-8") for each in PAGES)
    readme = (ROOT / "examples" / "README.md").read_text("utf-8")
    shown = re.findall(
        r"^(?:echo.*\| )?(trio-ws (?:serve|connect|listen)(?: [^<\n]*)?)(?:<.*)?$",
        page,
        re.MULTILINE,
    )
    shown += re.findall(r"`(trio-ws [^`]*)`", readme)
    unit = (EXAMPLE / "chat.service").read_text("utf-8")
    shown += re.findall(r"^ExecStart=/srv/chat/venv/bin/(.*)$", unit, re.MULTILINE)
    image = (EXAMPLE / "Dockerfile").read_text("utf-8")
    shown += [
        shlex.join(json.loads(found)) for found in re.findall(r"^CMD (.*)$", image, re.MULTILINE)
    ]
    assert len(shown) > 24
    for line in shown:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])
