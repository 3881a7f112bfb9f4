"""What else is served on the port of a WebSocket server: routes, hooks, pages, files, passwords.

Read `router` first. How a connection works inside does not come in here, and no handshake: a page
does without.
"""
