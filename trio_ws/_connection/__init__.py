"""An open connection: what the application holds, and the tasks behind it.

Read `websocket` first: it is what a user may call. How a connection comes about, and what a socket
is, stays out. `lifetime` puts the parts together:

- coming in: `reader` (the reader task), `reading` (who reads), `inbox` (what waits for receivers)
- going out: `sender` (whose turn it is), `outbox` (the bytes), `line` (what may be taken back),
  `outlet` (the way in for broadcasts), `flusher` (writes what was gathered)
- staying alive: `liveness` (decides what is due), `keepalive` (does it), `watchdog` (looks at all
  connections of a server), `pings` (those without an answer yet)
- the end: `ending` (its states and steps), `nursery` (user tasks that end with the connection)
- around it: `opening` (what a handshake leaves), `services` (what connections share), `pieces`
  (messages in fragments), `frame_log` (frames in the log), `pump` and `byte_stream` (uses of a
  connection)
"""
