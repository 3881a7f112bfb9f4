"""HTTP/1.1 as values and as bytes: requests, responses, header fields, URLs, heads by h11.

Read `exchange` first: it turns bytes into a `Request`, and a `Response` into bytes, through h11.
`reading` judges requests, and refuses those that are wrong. Sockets, tasks and open WebSockets stay
out.
"""
