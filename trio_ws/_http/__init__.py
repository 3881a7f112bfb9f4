"""HTTP/1.1 as values and as bytes: requests, responses, header fields, URLs, heads by h11.

Read `exchange` first: it turns bytes into a `Request`, and a `Response` into bytes, through h11.
Sockets, tasks and WebSockets stay out.
"""
