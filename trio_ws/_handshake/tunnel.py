"""Asking an HTTP proxy for a tunnel to the server (RFC 9110 section 9.3.6).

This module owns what the proxy is told, and what its answer means. It is told no more than where to
connect and its own credentials: everything else goes through the tunnel. The caller sets the
deadline, and closes the stream after an error. Bytes that arrive behind the answer are handed on.
"""

from __future__ import annotations

import re

from .._errors import ConnectionFailed
from .._http.exchange import ClientExchange, HeadBuffer, HeadTooLarge, MalformedHead, SpeaksTLS
from .._http.headers import Headers
from .._http.proxies import Proxy
from .._http.values import ProxyError, Response
from .._reasons import reworded
from .._transport.opening import begin_step, send_all
from .._transport.stream import Transport
from .answers import read_body, read_response


async def request_tunnel(
    transport: Transport, proxy: Proxy, authority: str, user_agent: str | None
) -> bytes:
    """Ask for a tunnel to `authority`, a host and a port.

    Returns:
        What came behind the answer: the server's first bytes.

    Raises:
        ProxyError: the proxy refused, or its answer is malformed.
        ConnectionFailed: the connection to the proxy broke first.
    """
    exchange = ClientExchange()
    buffer = HeadBuffer(ClientExchange.STARTS)
    fields = [("Host", authority)]
    if user_agent is not None:
        fields.append(("User-Agent", user_agent))
    if proxy.authorization is not None:
        fields.append(("Proxy-Authorization", proxy.authorization))
    begin_step("waiting for the proxy's answer")
    try:
        await send_all(transport, exchange.request(authority, Headers(fields), "CONNECT"))
        response = await read_response(transport, exchange, buffer)
    except SpeaksTLS:
        raise proxy.error("the proxy speaks TLS, so its URL begins with https://") from None
    except (MalformedHead, HeadTooLarge) as exc:
        raise proxy.error(f"the proxy's answer is no HTTP response to CONNECT: {exc}") from None
    except ConnectionFailed as exc:
        raise reworded(exc, f"the proxy gave no answer: {exc}") from exc.__cause__
    if not 200 <= response.status < 300:
        body = await read_body(transport, exchange, buffer.rest() or None)
        raise _refused(proxy, authority, Response(response.status, response.headers, body))
    return buffer.rest()


def _refused(proxy: Proxy, authority: str, response: Response) -> ProxyError:
    status = response.status
    if status not in (401, 407):  # some proxies say 401, which is for servers
        problem = f"gives no tunnel to {authority}: {status} {response.phrase}"
    elif not _may_be_basic(response.headers):
        problem = f"knows no Basic authorization, and this client no other: {status}"
    elif proxy.authorization is not None:
        problem = f"refuses the user and password in its URL: {status}"
    else:
        problem = f"wants a user and a password in its URL: {status}"
    return proxy.error(f"the proxy {problem}", response)


def _may_be_basic(headers: Headers) -> bool:
    offers = ", ".join(headers.get_all("Proxy-Authenticate"))
    return not offers or re.search(r"\bbasic\b", offers, re.IGNORECASE) is not None
