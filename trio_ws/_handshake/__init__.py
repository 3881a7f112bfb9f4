"""The opening handshake (RFC 6455 section 4), on both sides.

Read `accepting` first: a server's side of it. Routers, pages and what becomes of the connection
afterwards do not come in here; whoever serves them hands in a hook.
"""
