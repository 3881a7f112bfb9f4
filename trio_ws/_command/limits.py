"""What the help of ``trio-ws serve`` says of each limit of a server.

It is the first sentence of what `_options` says of the same option, and a test compares the two. It
stands here because Python drops the text there when it compiles: the help would have to read source
at each start, and would have nothing to say in an installation without sources.
"""

from __future__ import annotations

from typing import Final

LIMITS: Final = {
    "max_message_size": "Largest message accepted, in bytes of payload",
    "max_queued_messages": "Most messages received and not yet taken",
    "max_queued_bytes": "Most memory for messages received and not yet taken, in bytes",
    "max_send_buffer": "send waits while more bytes than this are unsent",
    "open_timeout": (
        "Seconds for the whole opening: name look-up, TCP, TLS and HTTP, redirects included"
    ),
    "close_timeout": (
        "Seconds for the whole closing: unsent messages, the Close frames and the TCP shutdown"
    ),
    "ping_interval": "A peer that has been silent for this many seconds is sent a ping",
    "ping_timeout": (
        "A peer that stays silent for this many seconds after a ping is dropped with 1011"
    ),
    "max_messages_per_second": (
        "How many messages a client may send in a second, on one connection"
    ),
    "max_bytes_per_second": "How many bytes a client may send in a second, on one connection",
    "idle_timeout": (
        "A connection without a message in either direction for this many seconds is closed with "
        "1000"
    ),
    "max_lifetime": (
        "A connection is closed with 1000 when it is this many seconds old, or up to 10 % less"
    ),
    "grace_period": "Seconds that handlers may go on at shutdown before they are cancelled",
    "max_connections": "Connections beyond this many get HTTP 503",
    "max_handshakes_per_second": "How often one address may connect in a second",
    "max_connections_per_address": "Connections of one address beyond this many get 429",
    "max_body_size": "Largest body of an HTTP request that a Router accepts, in bytes",
    "keep_alive_timeout": (
        "Seconds that an HTTP connection to a Router may be idle between two requests"
    ),
}
