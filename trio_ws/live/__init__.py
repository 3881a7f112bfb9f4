"""Topics for clients that come and go: the server of trio-ws.live.v1, and a module for browsers.

Read `_live` first: it is the server's side, a thin layer over a `Broadcast`. `live.js` is the
client for pages and for Node, and both keep to ``docs/reference/live-protocol.md``. How messages
are kept and caught up on stays out: that is the broadcast's.
"""

from .._web.live_module import MODULE
from ._live import Authorize, GetState, Identify, Live, OnMessage, Refused, open_live

__all__ = [
    "MODULE",
    "Authorize",
    "GetState",
    "Identify",
    "Live",
    "OnMessage",
    "Refused",
    "open_live",
]
