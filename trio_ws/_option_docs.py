"""The options as `help()` shows them. Made by ``python -m tests.project.shown``."""

from __future__ import annotations

from typing import Final

#: For each class of options, those that it adds to the class that it is made from.
OPTION_DOCS: Final = {
    "ConnectionOptions": """
    max_message_size (float), 1 MiB by default
        Largest message accepted, in bytes of payload. A larger message fails the
        connection with 1009. 1 MiB holds any message that a person writes and most that
        programs write, and bounds what one peer can make this side hold. Each frame of
        a fragmented message after the first counts at least 64, so that a peer cannot
        send empty ones for ever.
    max_queued_messages (float), 1024 by default
        Most messages received and not yet taken. When this many wait, the connection
        stops reading, and TCP makes the peer wait in turn. Messages are decoded in
        batches of at most 64, or of this many if that is less, and one batch may
        overshoot the limit. Throughput was the same from 16 to 4096. A larger number
        rides out bursts; with a smaller one the peer feels a slow handler sooner.
    max_queued_bytes (float), 256 KiB by default
        Most memory for messages received and not yet taken, in bytes. One read may
        overshoot it, by 64 KiB, by 256 KiB if much is coming, or by 1 MiB within a
        large message. A single message that is larger than this is still received whole
        once a task asks for it.
    max_send_buffer (float), 64 KiB by default
        `send` waits while more bytes than this are unsent. One message may exceed it,
        so the buffer never holds more than this and the largest message together. 64
        KiB keeps a fast network busy between two turns of the task that fills the
        buffer.
    open_timeout (float), 10 s by default
        Seconds for the whole opening: name look-up, TCP, TLS and HTTP, redirects
        included.
    close_timeout (float), 10 s by default
        Seconds for the whole closing: unsent messages, the Close frames and the TCP
        shutdown. Leaving a connection never takes longer.
    ping_interval (float), 20 s by default
        A peer that has been silent for this many seconds is sent a ping. 20 s is below
        the idle timeout of every common proxy. `math.inf` turns keepalive off.
    ping_timeout (float), 20 s by default
        A peer that stays silent for this many seconds after a ping is dropped with
        1011. The time runs from when the ping has left. A peer that takes no byte of
        ours for `ping_interval` and this together is dropped too. One that reads slowly
        and steadily is kept. After this computer has slept, a peer gets 3 s at most.
    compression (Deflate | None), Deflate() by default
        Settings of permessage-deflate (RFC 7692), or `None` for no compression.
        Compression is used if the peer agrees, and for messages that are worth it.
    subprotocols (Sequence[str]), () by default
        Subprotocols (RFC 6455 section 1.9), the preferred one first. A client offers
        them. A server picks the first of its own that the client offered, or none.
    headers (HeadersLike), () by default
        Additional header fields: of a client's opening request, or of every response of
        a server, be it the 101, a page or a refusal. A field that a response has
        itself, other than Set-Cookie, takes the place of one of the same name here.
        With a server, this is the place for security headers and CORS.
    decode_text (bool), True by default
        Whether text is received as `str`. False leaves it as `bytes`, which are checked
        to be UTF-8, for parsers that take bytes. orjson then takes about a fifth less
        time if the text is not ASCII; with ASCII, and with other parsers, little is
        gained. The price: text and binary can no longer be told apart, and a message
        that is sent back as it came goes out as binary.
    on_ping_pong (PingPongHook | None), None by default
        A function that is called for each ping and pong from the peer. It gets the
        connection, ``"ping"`` or ``"pong"``, and the payload. A ping has been answered
        by then, and the pongs that answer keepalive's pings are included. The function
        cannot wait, because it runs where the connection is read. What it raises is
        logged, and the connection goes on.
    logger (LoggerLike), getLogger('trio_ws') by default
        The logger for all records, or a `logging.LoggerAdapter` that adds to each of
        them. Each record has the attribute `connection_id`.""",
    "ClientStreamOptions": """
    origin (str | None), None by default
        The Origin header, for servers that ask for one. Browsers send it; other clients
        need not.
    user_agent (str | None), 'trio_ws/0.2.0' by default
        The User-Agent header, or `None` for none.
    cookies (CookieJar | None), None by default
        A `http.cookiejar.CookieJar`. It says which cookies go with the opening request,
        and learns those that the response sets, whatever its status. For the jar,
        ``ws`` is ``http`` and ``wss`` is ``https``, so that it may be an HTTP client's,
        too. If `headers` has a Cookie, that is sent instead. On a redirect to another
        origin the jar is not asked.""",
    "ClientOptions": """
    ssl_context (ssl.SSLContext | None), None by default
        The TLS context for ``wss``. By default, the system's trust store is used, and
        host names are checked.
    server_hostname (str | None), None by default
        The name that the server's certificate is for, if that is not the host of the
        URL. At the end of a tunnel, or behind an IP address, they differ. TLS also
        sends this name to the server (SNI). The Host header still names the host of the
        URL, unless `headers` has another.
    path (str | os.PathLike[str] | None), None by default
        A Unix socket to connect to. The URL keeps its meaning: ``ws`` or ``wss``, the
        Host header, the resource.
    max_redirects (int), 0 by default
        How many HTTP redirects to follow, at most 10. A redirect from ``wss`` to ``ws``
        is never followed, and credentials and cookies are not sent to another origin.
    proxy (str | None), 'env' by default
        The proxy to go through: ``"env"`` for the one that the environment names, if
        any; `None` for none; or a URL such as
        ``"http://user:password@proxy.example:3128"``. The scheme is ``http`` or
        ``https`` (a tunnel by CONNECT), ``socks4a``, ``socks5`` or ``socks5h``; SOCKS
        needs the extra ``proxy``. This machine (``localhost``, 127.0.0.1, a Unix
        socket) is never reached through a proxy of the environment. "Connecting through
        a proxy", in the documentation, has the variables.
    proxy_ssl_context (ssl.SSLContext | None), None by default
        The TLS context for an ``https`` proxy. By default, the system's trust store is
        used. The server behind the proxy is `ssl_context`'s business.
    local_address (str | None), None by default
        The IP address of this machine to connect from, to the server or to the proxy.
        By default, the system chooses one.""",
    "ServerStreamOptions": """
    process_request (ProcessRequest | None), None by default
        A sync or async function that is called with each well-formed `Request`. The
        request may be for a WebSocket or plain HTTP. The function returns `None` to go
        on, `Accept` to go on with a subprotocol or headers of its choice, or a
        `Response` to answer with instead: a page, a health check, a 401.
    origins (Origins), ('same-origin', None) by default
        Whose pages may connect, by their Origin header; anything else gets 403. Each is
        an exact string, a compiled regular expression (which has to match the whole),
        ``"same-origin"`` for pages of the host and port in the Host header, ``"null"``
        for pages opened from a disk, or `None` for requests without the header, as
        programs send them. ``"*"``, alone or in the list, is every one. By default, no
        other site's page can use the cookies of a user who is logged in here, or reach
        a server that only this machine can.
    hosts (Sequence[str] | None), None by default
        The hosts that this server answers to, in the Host header; a request for any
        other gets 421. Each is a name, ``"*.example.org"`` for every name under it, an
        address, a network like ``"10.0.0.0/8"``, or ``"*"``, which may also stand
        alone. By default, every host. But a server that listens only on loopback
        addresses, and has no `trusted_proxies`, answers only to ``localhost``, the
        names under it and such addresses. Otherwise any page could reach it under a
        name of its own (DNS rebinding).
    server_header (str | None), 'trio_ws/0.2.0' by default
        The Server header, or `None` for none.
    trusted_proxies (Sequence[str]), () by default
        The proxies that are believed when they say who the client is. Each is an
        address, a network like ``"10.0.0.0/8"``, or ``"unix"`` for peers without an
        address, on a Unix socket. Behind such a proxy, `remote_address` and `scheme`
        are those of the client.
    proxy_header (ProxyHeader), 'X-Forwarded-For' by default
        How trusted proxies say who the client is. One of ``"X-Forwarded-For"``, with
        X-Forwarded-Proto for the scheme; ``"Forwarded"`` (RFC 7239); and ``"PROXY"``,
        for the PROXY protocol, version 1 or 2, before TLS and HTTP. Only one is
        believed, because a client can send the others itself.
    max_messages_per_second (float), math.inf by default
        How many messages a client may send in a second, on one connection. After a
        quiet time, one second's worth may come at once, and at least one message. A
        ping or a pong counts as a message, and so does a fragment of less than 1 KiB.
        What a person does makes a few messages a second, a game up to 60: leave several
        times as much.
    max_bytes_per_second (float), math.inf by default
        How many bytes a client may send in a second, on one connection. Those of frames
        count, heads included, and a compressed message as if it were not compressed.
        After a quiet time, one second's worth may come at once. A message that is
        larger comes when all of it would have been allowed.
    on_rate_limit (RateLimitPolicy), 'wait' by default
        What to do with a client that sends faster than these two allow. With
        ``"wait"``, its connection is read no faster: TCP makes it wait, and nothing is
        lost. Its pings and its Close frame wait behind its messages. With ``"close"``,
        the connection is closed with 1008, and the reason names the limit. A client
        that keeps to its limits notices neither.
    idle_timeout (float), math.inf by default
        A connection without a message in either direction for this many seconds is
        closed with 1000.
    max_lifetime (float), math.inf by default
        A connection is closed with 1000 when it is this many seconds old, or up to 10 %
        less. How much less is random, so that clients which came together, after a
        restart say, do not all leave and come back together.""",
    "ListenerOptions": """
    on_handler_error (HandlerErrorPolicy), 'log' by default
        What to do when a handler raises an `Exception` other than its own connection's
        end. The peer gets 1011 in any case. ``"log"`` writes one record with the
        traceback, and the server goes on. ``"propagate"`` shuts the server down and
        raises the exception from there. A plain function is called with the connection,
        which is closed by then, and the exception, and the server goes on. An HTTP
        endpoint has no connection to pass on: its exception is logged or propagated.
    grace_period (float), 5 s by default
        Seconds that handlers may go on at shutdown before they are cancelled. They run
        from when the peers are told 1001.
    max_connections (float), math.inf by default
        Connections beyond this many get HTTP 503. Connections in the opening handshake
        count. So do those that only speak HTTP with a `Router`, even while they are
        idle. Up to 16 requests for pages at a time are answered all the same, each with
        ``Connection: close``: a server that is full passes its health checks.
    max_handshakes_per_second (float), math.inf by default
        How often one address may connect in a second. After a quiet time, one second's
        worth may come at once, and at least one connection. What is beyond gets 429
        with Retry-After, and over TLS it is hung up on. An IPv6 address stands for its
        /64. Behind `trusted_proxies`, the client's address counts; set these first, or
        all clients are one. With several workers, each counts by itself. A Unix socket
        has no address. A page makes one connection, and a browser that restores its
        tabs makes ten; leave room for offices behind one address: 20 or more.
    max_connections_per_address (float), math.inf by default
        Connections of one address beyond this many get 429. Counted are the same
        connections as for `max_connections`, and the same addresses as for
        `max_handshakes_per_second`. Behind a proxy that names the client in a header,
        that is from the request for a WebSocket on. A hundred leaves room for offices
        behind one address.
    max_body_size (float), 1 MiB by default
        Largest body of an HTTP request that a `Router` accepts, in bytes. A larger one
        gets 413. The whole body is held in memory. Each chunk of a chunked body counts
        at least 64. A body that does not arrive within `open_timeout` gets 408: 1 MiB
        in 10 s is 0.8 Mbit/s.
    keep_alive_timeout (float), 75 s by default
        Seconds that an HTTP connection to a `Router` may be idle between two requests.
        nginx gives up an idle connection to a server behind it after 60 s. 75 s is
        longer, because the side that sends the next request should be the one that
        closes first.""",
    "RedisOptions": """
    mode (Literal['pubsub', 'streams']), 'pubsub' by default
        ``"pubsub"`` is cheapest, and forgets: what is published while a process is not
        connected never reaches it. ``"streams"`` keeps positions and messages in Redis,
        so that such a process reads what it missed. All processes must use the same
        mode.
    prefix (str), 'trio_ws:' by default
        The beginning of the names of all channels and keys. Different programs that
        share a Redis server need different prefixes, because Redis's databases do not
        separate channels.
    max_queued_messages (float), 10000 by default
        Messages published and not yet on their way to Redis. When one more comes, the
        oldest is dropped. 10 000 are 10 s without Redis at 1000 messages a second. One
        batch of 256 may be in flight in addition.
    max_queued_bytes (float), 16 MiB by default
        Bytes of such messages. A single message that is larger may wait alone.
    stream_length (float), 10000 by default
        With ``"streams"``, about how many messages of each topic Redis keeps. This is
        how far behind a process or a client may fall, or how long it may be away,
        without missing any. It costs memory in Redis.
    stream_max_age (float), math.inf by default
        With ``"streams"``, for how long a message is kept. Older ones are not given to
        anybody.
    stream_ttl (float), 86400 s by default
        With ``"streams"``, Redis deletes what it has of a topic after this long without
        a message, so that unused topics do not stay for ever. It may be a tenth less.
    ping_interval (float), 1 s by default
        A connection to Redis over which nothing came for this long is sent a PING.
    ping_timeout (float), 2 s by default
        If nothing comes for this long after the PING, the connection is replaced by a
        new one. The defaults find a dead connection within 4 s; larger values forgive a
        slower broker.
    open_timeout (float), 5 s by default
        For one attempt to connect: asking Sentinels, name look-up, TCP, TLS, log-in and
        subscribing together.
    sentinel_password (str | None), None by default
        With ``redis+sentinel`` URLs, what the Sentinels themselves ask for, if
        anything. The user and the password in the URL are for the servers that they
        name.
    ssl_context (ssl.SSLContext | None), None by default
        For ``rediss`` URLs. By default the system's trust store, with host names
        checked. Sentinels are spoken to over TLS, too, and name a server as its
        certificate does if they have ``sentinel announce-hostnames yes``.
    logger (LoggerLike), getLogger('trio_ws') by default
        The logger for records: a warning when Redis is lost, a line when it is back.""",
}
