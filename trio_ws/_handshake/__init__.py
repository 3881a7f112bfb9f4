"""The opening handshake (RFC 6455 section 4), on both sides.

Read `accepting` first, the server's side of it. Routers and pages do not come in here, and neither
does the life of the connection afterwards. The server hands in what decides about a request.
"""
