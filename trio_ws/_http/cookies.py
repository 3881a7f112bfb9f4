"""Cookies of a client: between a cookie jar of the standard library and our header fields.

This module owns how a jar is asked. Which cookies go where, and which are believed, is the jar's
own business, by its policy. The standard library's jar takes a while to load, so this module is
imported only where somebody has one.
"""

from __future__ import annotations

import email.message
import urllib.request
from typing import TYPE_CHECKING, cast

from .headers import Headers
from .url import WebSocketURL

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from http.cookiejar import CookieJar


def cookies_for(jar: CookieJar, url: WebSocketURL) -> str | None:
    """The value of the Cookie field for a request to `url`; `None` for no field."""
    request = _as_http(url)
    jar.add_cookie_header(request)
    return request.get_header("Cookie")


def keep_cookies(jar: CookieJar, url: WebSocketURL, headers: Headers) -> None:
    """Let `jar` learn the cookies that the response from `url` sets."""
    fields = email.message.Message()
    for value in headers.get_all("Set-Cookie"):
        fields["Set-Cookie"] = value
    # `info` is all that a jar asks of a response.
    jar.extract_cookies(cast("HTTPResponse", _Answer(fields)), _as_http(url))


class _Answer:
    def __init__(self, fields: email.message.Message) -> None:
        self._fields = fields

    def info(self) -> email.message.Message:
        return self._fields


def _as_http(url: WebSocketURL) -> urllib.request.Request:
    # With this scheme, so that the jar can be shared with an HTTP client of the same site.
    return urllib.request.Request(str(url).replace("ws", "http", 1))  # noqa: S310 - not opened
