"""An open connection: what the application holds, and the tasks behind it.

Read `websocket` first: it is what a user may call. How a connection comes about, and what a socket
is, stays out.
"""
