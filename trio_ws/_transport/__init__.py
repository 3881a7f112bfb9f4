"""The door to the network: plain sockets without waiting, and any other trio stream.

Read `sockets` first. Nothing outside this folder knows a socket; nothing in it knows a frame or a
line of HTTP. The errors of the system become trio's here.
"""
