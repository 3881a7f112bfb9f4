"""Joining processes through Redis: pub/sub, or streams that keep what was missed.

Read `backplane` first: it is what `RedisBackplane` does; `link` is the one file that knows coredis,
and the one that reconnects. What a broadcast is does not come in here.
"""
