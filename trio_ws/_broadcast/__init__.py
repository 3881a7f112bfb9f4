"""One message for many: topics, subscribers, and what becomes of a slow reader.

Read `broadcast` first: it is what `open_broadcast` gives. A message goes from there by `topics` to
`to_websocket` and `to_channel`. If it has to wait, `slow_readers` queues, drops or disconnects.
Handshakes and servers stay out, and other processes come in only as a `Backplane`.
"""
