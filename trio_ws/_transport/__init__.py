"""The door to the network: plain sockets without waiting, and any other trio stream.

Read `stream` first: it is what every transport is to the connections above. Nothing outside this
folder knows a socket; nothing in it knows a frame or a line of HTTP. The errors of the system
become trio's here.
"""
