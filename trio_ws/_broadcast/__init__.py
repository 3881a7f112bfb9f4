"""One message for many: topics, subscribers, and what becomes of a slow reader.

Read `broadcast` first: it is what `open_broadcast` gives. A message goes from there by `topics` to
`to_websocket` and `to_channel`, and where it has to wait, to a `queue`. Handshakes and servers do
not come in here, and other processes only as a `Backplane`.
"""
