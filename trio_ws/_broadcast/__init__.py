"""One message for many: topics, subscribers, and what becomes of a slow reader.

Read `broadcast` first: it is what `open_broadcast` gives. Handshakes and servers do not come in
here, and other processes only as a `Backplane`.
"""
