"""Ctrl-C and SIGTERM, as a shell sends them: programs end at once, and print what they should."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import _trio_ws_script
import trio_ws
from tests.examples.scripts import EXAMPLES, PATIENCE, command
from tests.helpers import kill
from tests.project.pages import PAGES, PORT, snippets
from trio_ws import ConnectionEnded, ConnectionFailed, open_websocket_url

SERVERS = [
    text
    for language, _, text in snippets(PAGES[0])
    if language == "python" and "serve_websocket, " in text
]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port: int = sock.getsockname()[1]
        return port


async def wait_until_closed(port: int, process: trio.Process) -> None:
    """Connect to a server, once it listens; send it SIGINT, and see how it says goodbye."""
    while True:
        try:
            async with open_websocket_url(f"ws://localhost:{port}/") as ws:
                process.send_signal(signal.SIGINT)
                with pytest.raises(ConnectionEnded, match="^1001 "):
                    while True:
                        await ws.receive()
                return
        except ConnectionFailed:
            await trio.sleep(0.05)


@pytest.mark.parametrize("code", SERVERS, ids=range(len(SERVERS)))
async def test_ctrl_c_ends_the_servers_of_the_readme(code: str) -> None:
    port = free_port()
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-X", "dev", "-c", code.replace(PORT, str(port))],
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            await wait_until_closed(port, process)
            printed = b"".join([data async for data in process.stderr]).decode()
            status = await process.wait()
        finally:
            await kill(process)
    if "except KeyboardInterrupt" in code:
        assert (status, printed) == (0, "")
    else:
        assert printed.splitlines()[-1] == "KeyboardInterrupt"
        assert "Group" not in printed


def test_a_program_of_the_readme_shows_how_ctrl_c_is_kept_quiet() -> None:
    assert "except KeyboardInterrupt" in SERVERS[0]


async def test_sigterm_ends_a_server_in_the_background_of_a_script() -> None:
    # A shell that has no jobs lets what it starts with & ignore SIGINT.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            [*ignoring, *command("hello/server.py", "--port", "0")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            printed = await process.stdout.receive_some()
            assert b"Ctrl-C" in printed
            process.send_signal(signal.SIGTERM)
            rest = b"".join([data async for data in process.stdout])
            assert b"Traceback" not in rest
            assert await process.wait() == 0
        finally:
            await kill(process)


@pytest.mark.parametrize(
    "path",
    [path for path in EXAMPLES.rglob("*.py") if "SIGTERM" in path.read_text("utf-8")],
    ids=lambda path: str(path.relative_to(EXAMPLES)),
)
def test_each_example_that_minds_sigterm_does_it_in_the_same_way(path: Path) -> None:
    lines = """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
"""
    assert lines in path.read_text("utf-8")


INTERRUPTED = """
import signal, sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "trio_ws._http.url":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from _trio_ws_script import main
sys.exit(main())
"""


def test_ctrl_c_while_the_program_itself_is_imported_is_130_and_quiet() -> None:
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "--version"], capture_output=True, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (130, b"", b"")


def test_the_script_runs_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trio-ws", "--version"])
    with pytest.raises(SystemExit, match="^0$"):
        _trio_ws_script.main()
    assert capsys.readouterr().out == f"trio-ws {trio_ws.__version__}\n"
