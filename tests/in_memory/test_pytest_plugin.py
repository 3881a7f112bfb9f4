"""The pytest plugin: its fixtures, as this suite uses them and as other projects do."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import trio

from tests.helpers import echo
from trio_ws import ConnectionRejected, Response, open_websocket_url
from trio_ws.testing import OpenWebSocketTo, StartWebSocketApp, StartWebSocketServer

#: How many seconds one run of pytest may take on a busy machine.
PATIENCE = 60


# ---------------------------------------------------------------------------
# In this suite
# ---------------------------------------------------------------------------


async def test_a_client_is_opened_and_closed_with_the_test(
    open_websocket_to: OpenWebSocketTo, autojump_clock: trio.abc.Clock
) -> None:
    ws = await open_websocket_to(echo, "/one", headers={"X": "1"})
    other = await open_websocket_to(echo, "/two", server_options={"max_message_size": 10})
    await ws.send("hello")
    await trio.sleep(3600)
    assert await ws.receive() == "hello"
    assert (ws.request.path, other.request.path) == ("/one", "/two")


async def test_a_rejection_is_the_test_s_to_catch(open_websocket_to: OpenWebSocketTo) -> None:
    with pytest.raises(ConnectionRejected):
        await open_websocket_to(
            echo, server_options={"process_request": lambda request: Response(403)}
        )
    with pytest.raises(TypeError, match="nonsense"):
        await open_websocket_to(echo, nonsense=1)  # type: ignore[call-arg]


async def test_an_application_is_served_until_the_test_ends(
    start_websocket_app: StartWebSocketApp,
) -> None:
    app = await start_websocket_app(echo, process_request=lambda request: None)
    async with app.websocket() as ada, app.websocket() as bob:
        await ada.send("hello")
        assert await ada.receive() == "hello"
        assert len(app.server.connections) == 2
        assert bob.request.path == "/"


async def test_a_server_listens_until_the_test_ends(
    start_websocket_server: StartWebSocketServer,
) -> None:
    server = await start_websocket_server(echo)
    async with open_websocket_url(server.urls[0]) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


# ---------------------------------------------------------------------------
# In other projects
# ---------------------------------------------------------------------------


async def run_pytest(project: Path, tests: str, *, settings: str = "") -> tuple[int, str]:
    (project / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{settings}\n")
    (project / "test_app.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_app.py"]
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            command, cwd=project, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    return result.returncode, result.stdout.decode()


GREETING = """
import pytest

async def greet(ws):
    await ws.send(f"hello {ws.request.path}")

@MARK
async def test_greeting(open_websocket_to):
    ws = await open_websocket_to(greet, "/ada")
    assert await ws.receive() == "hello /ada"
"""


@pytest.mark.parametrize(
    ("mark", "settings"), [("", "trio_mode = true"), ("@pytest.mark.trio", "")]
)
async def test_the_fixtures_are_there_in_trio_mode_and_for_marked_tests(
    tmp_path: Path, mark: str, settings: str
) -> None:
    code, output = await run_pytest(tmp_path, GREETING.replace("@MARK", mark), settings=settings)
    assert code == 0, output
    assert "1 passed" in output


@pytest.mark.parametrize(
    ("tests", "settings"),
    [
        (GREETING.replace("@MARK", ""), ""),
        ("def test_greeting(open_websocket_to):\n    pass", "trio_mode = true"),
    ],
    ids=["no trio mode", "no async function"],
)
async def test_where_pytest_trio_does_not_run_a_test_the_error_names_trio_mode(
    tmp_path: Path, tests: str, settings: str
) -> None:
    code, output = await run_pytest(tmp_path, tests, settings=settings)
    assert code == 1, output
    assert "open_websocket_to is for tests that pytest-trio runs" in output
    assert "set trio_mode = true" in output
    assert "@pytest.mark.trio" in output


async def test_every_test_that_pytest_trio_does_not_run_is_told_so(tmp_path: Path) -> None:
    tests = "def test_one(open_websocket_to): pass\ndef test_two(open_websocket_to): pass"
    code, output = await run_pytest(tmp_path, tests)
    assert code == 1, output
    assert output.count("open_websocket_to is for tests that pytest-trio runs") >= 2
    assert "AssertionError" not in output


async def test_without_pytest_trio_the_error_says_what_to_install(tmp_path: Path) -> None:
    code, output = await run_pytest(
        tmp_path, GREETING.replace("@MARK", ""), settings="addopts = -p no:trio"
    )
    assert code == 1, output
    assert "pip install pytest-trio" in output


ANYIO = """
import pytest

@pytest.fixture
def anyio_backend():
    return "trio"

async def greet(ws):
    await ws.send("hello")

@pytest.mark.anyio
async def test_greeting(open_websocket_to):
    ws = await open_websocket_to(greet)
    assert await ws.receive() == "hello"

@pytest.fixture
def start_websocket_app():
    return "a fixture of the project's own"

def test_another_fixture_of_that_name(start_websocket_app):
    assert start_websocket_app == "a fixture of the project's own"
"""


async def test_what_anyio_s_plugin_runs_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    code, output = await run_pytest(tmp_path, ANYIO)
    assert code == 0, output
    assert "2 passed" in output


FAILING = """
import trio

async def fail(ws):
    raise KeyError("the handler's own")

async def test_waits_for_ever(open_websocket_to):
    await open_websocket_to(fail)
    await trio.sleep_forever()

async def test_receives(start_websocket_app):
    app = await start_websocket_app(fail)
    async with app.websocket() as ws:
        await ws.receive()

async def test_does_nothing(open_websocket_to):
    await open_websocket_to(fail)

async def test_is_well(open_websocket_to):
    pass
"""


async def test_a_handler_s_error_fails_the_test_and_no_other(tmp_path: Path) -> None:
    code, output = await run_pytest(tmp_path, FAILING, settings="trio_mode = true")
    assert code == 1, output
    assert "3 failed, 1 passed" in output
    assert output.count('KeyError: "the handler\'s own"') == 3


async def test_pytest_alone_imports_nothing_of_the_package(tmp_path: Path) -> None:
    tests = """
import sys

def test_nothing_is_imported():
    assert "_trio_ws_pytest" in sys.modules
    assert "trio_ws" not in sys.modules
"""
    code, output = await run_pytest(tmp_path, tests)
    assert code == 0, output


def test_the_plugin_is_registered_with_pytest() -> None:
    (plugin,) = entry_points(group="pytest11", name="trio_ws")
    assert plugin.value == "_trio_ws_pytest"
