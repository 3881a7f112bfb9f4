"""The public names that `import trio_ws` does not load, and what loads them when they are used.

This module owns which names these are: those of servers, of what else is served on their port, of
broadcasts, and of logs. A client needs none of them, and its program starts in half the time. How
Python asks for a name that a module does not have, PEP 562 says.

Type checkers read the same names in the package's ``__init__``, and
`test_public_names.py::test_type_checkers_see_the_names_that_are_loaded_later` compares the two.
"""

from __future__ import annotations

import sys
from importlib import import_module

#: What is imported from rooms of its own.
ROOMS = ("backplane", "live", "metrics")

_PACKAGE = __name__.rpartition(".")[0]

#: Where each name is defined, seen from the package.
MODULES = {
    "Before": "_web.router",
    "Broadcast": "_broadcast.broadcast",
    "BroadcastChannel": "_broadcast.to_channel",
    "BroadcastStatistics": "_broadcast.tally",
    "ChannelStatistics": "_broadcast.to_channel",
    "CheckCredentials": "_web.basic_auth",
    "Disconnect": "_broadcast.policies",
    "DropNewest": "_broadcast.policies",
    "DropOldest": "_broadcast.policies",
    "Dropped": "_broadcast.tally",
    "Handler": "_server.handlers",
    "JSONFormatter": "_json_lines",
    "Latest": "_broadcast.policies",
    "Link": "_client.reconnecting",
    "Membership": "_broadcast.presence",
    "Page": "_web.router",
    "Position": "backplane._position",
    "Presence": "_broadcast.presence",
    "PresenceSnapshot": "_broadcast.presence",
    "Router": "_web.router",
    "ServerStatistics": "_server.server",
    "SlowReaderPolicy": "_broadcast.policies",
    "StateUnavailable": "_broadcast.catching_up",
    "Subscription": "_broadcast.subscription",
    "Username": "_web.basic_auth",
    "WebSocketServer": "_server.server",
    "basic_auth": "_web.basic_auth",
    "open_broadcast": "_broadcast.opening",
    "reconnecting": "_client.reconnecting",
    "serve_listeners": "_server.server",
    "serve_websocket": "_server.server",
    "wrap_server_stream": "_server.one_stream",
}


def load(name: str) -> object:
    """What `name` names; the package's ``__getattr__``, which Python asks once for each name.

    Raises:
        AttributeError: there is no such public name.
    """
    if name in ROOMS:  # without this, it would be there or not by what was used before
        return import_module(f"{_PACKAGE}.{name}")
    if name not in MODULES:
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{_PACKAGE}.{MODULES[name]}"), name)
    setattr(sys.modules[_PACKAGE], name, value)
    return value


def names() -> list[str]:
    """All names of the package; its ``__dir__``."""
    return sorted({*vars(sys.modules[_PACKAGE]), *MODULES, *ROOMS})
