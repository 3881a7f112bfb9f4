"""The pytest plugin of trio_ws: fixtures for tests that pytest-trio runs.

pytest imports this module whenever it starts, in every project that has trio_ws installed. It
stands beside the package, and imports the package only when a test asks for a fixture. So it costs
no project any start-up time, and coverage sees the package from its first line.

Each fixture is a function that opens something and keeps it open until the test ends. The
connections live in a task of the fixture. An error of the application cancels the test and fails
it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import trio

    from trio_ws.testing import OpenWebSocketTo, StartWebSocketApp, StartWebSocketServer


@pytest.fixture
async def open_websocket_to() -> AsyncGenerator[OpenWebSocketTo, None]:
    """Connect to an application in memory: `trio_ws.testing.open_test_websocket`.

    ``ws = await open_websocket_to(handler, "/path")``
    """
    from trio_ws.testing import open_test_websocket

    async with _keeping_open(open_test_websocket) as start:
        yield start


@pytest.fixture
async def start_websocket_app() -> AsyncGenerator[StartWebSocketApp, None]:
    """Serve an application in memory: `trio_ws.testing.open_test_app`.

    ``app = await start_websocket_app(handler)``
    """
    from trio_ws.testing import open_test_app

    async with _keeping_open(open_test_app) as start:
        yield start


@pytest.fixture
async def start_websocket_server() -> AsyncGenerator[StartWebSocketServer, None]:
    """Serve an application on a free port: `trio_ws.testing.open_test_server`.

    ``server = await start_websocket_server(handler)``
    """
    from trio_ws.testing import open_test_server

    async with _keeping_open(open_test_server) as start:
        yield start


_FIXTURES = ("open_websocket_to", "start_websocket_app", "start_websocket_server")


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> None:
    """Say what to do if nobody would run a fixture: pytest's own error does not mention trio."""
    is_ours = fixturedef.argname in _FIXTURES and fixturedef.func.__module__ == __name__
    # anyio's plugin also runs them, for tests that it runs with trio.
    if not is_ours or "anyio_backend" in request.fixturenames:
        return
    if not request.config.pluginmanager.hasplugin("trio"):
        what = "it is not installed: pip install pytest-trio"
    elif request.node.get_closest_marker("trio") is None:
        what = (
            "write the test as an async function, and set trio_mode = true under [pytest] in "
            "pytest.ini or under [tool.pytest.ini_options] in pyproject.toml, or mark the test "
            "with @pytest.mark.trio"
        )
    else:
        return
    name = fixturedef.argname
    error = pytest.fail.Exception(f"{name} is for tests that pytest-trio runs; {what}", False)
    # pytest finishes a fixture only if it finds an outcome here. The next test that asks for an
    # unfinished fixture would fail with a bare AssertionError.
    fixturedef.cached_result = (None, None, (error, None))  # value, parameter, error
    raise error


@asynccontextmanager
async def _keeping_open(
    open_it: Callable[..., AbstractAsyncContextManager[Any]],
) -> AsyncGenerator[Any, None]:
    """A function that enters a context in a new task, and gives what the context yields."""
    import trio

    over = trio.Event()

    async def keep_open(*args: Any, task_status: trio.TaskStatus[object], **options: Any) -> None:
        async with open_it(*args, **options) as opened:
            task_status.started(opened)
            await over.wait()

    async with trio.open_nursery() as nursery:

        async def start(*args: Any, **options: Any) -> object:
            return await nursery.start(partial(keep_open, *args, **options))

        try:
            yield start
        finally:
            over.set()
