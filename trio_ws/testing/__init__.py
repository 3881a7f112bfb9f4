"""Tools for testing what is written with trio_ws: applications in memory, pairs, faulty streams.

Read `_apps` first: it serves an application without a network. The connections and servers are the
same as in production: nothing here stands in for them. Test frameworks stay out; the fixtures for
pytest-trio are in a separate module beside the package.

Nothing in memory takes real time or a thread, so a test with an autojumped clock never waits.
"""

from ._apps import (
    MemoryApp,
    OpenWebSocketTo,
    StartWebSocketApp,
    StartWebSocketServer,
    open_pair,
    open_test_app,
    open_test_server,
    open_test_websocket,
)
from ._backplanes import check_backplane
from ._faulty_stream import FaultyStream
from ._memory_client import MemoryClient, MemoryListener, MemoryResponse, MemoryStream, Params

__all__ = [
    "FaultyStream",
    "MemoryApp",
    "MemoryClient",
    "MemoryListener",
    "MemoryResponse",
    "MemoryStream",
    "OpenWebSocketTo",
    "Params",
    "StartWebSocketApp",
    "StartWebSocketServer",
    "check_backplane",
    "open_pair",
    "open_test_app",
    "open_test_server",
    "open_test_websocket",
]
