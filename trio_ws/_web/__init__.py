"""What else is served on the port of a WebSocket server: routes, pages, files, a log-in.

Read `router` first. How a connection works inside does not come in here.
"""
