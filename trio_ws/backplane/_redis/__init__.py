"""Joining processes through Redis: pub/sub, or streams that keep what was missed.

Read `backplane` first: it connects, and reconnects. `link` is the one file that knows coredis.
Nothing here knows what a broadcast is.
"""
