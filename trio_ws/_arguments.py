"""Checks of what callers give, made when they give it: functions, numbers, addresses, TLS contexts.

Each check raises `TypeError` or `ValueError`, and says what to do about it. `_options` checks
options, and `_transport` checks streams.
"""

from __future__ import annotations

import dis
import functools
import inspect
import ipaddress
import ssl
from collections.abc import Awaitable, Iterable, Sequence
from itertools import pairwise
from types import FunctionType
from typing import Any, cast

# ---------------------------------------------------------------------------
# Functions
# ---------------------------------------------------------------------------


def check_callable(what: str, function: object, *arguments: str) -> None:
    """Check that `function` can be called as it will be.

    Args:
        what: its name in the error.
        function: what was given.
        arguments: what it will be called with, in words: one for each.

    Raises:
        TypeError: it cannot be called so, or it gives a generator.
    """
    given = _listed(arguments)
    check_is_function(what, function, given)
    check_takes(f"{what} is called with {given}", function, arguments)


def check_async(what: str, function: object, *arguments: str) -> None:
    """`check_callable` for a function whose result is awaited."""
    check_is_async(what, function, _listed(arguments))
    check_callable(what, function, *arguments)


def check_is_function(what: str, function: object, given: str) -> None:
    """Check that `function` can be called, with any arguments at all, and gives no generator."""
    if not callable(function):
        raise TypeError(f"{what} is a function of {given}, not {function!r}")
    if _has_yield(function):
        raise TypeError(f"{what} is a function of {given}: {_named(function)} has a yield in it")


def check_is_async(what: str, function: object, given: str) -> None:
    """Check that `function` may return something to await, with any arguments at all.

    What a plain function returns is known only when it is called. But one that returns nothing on
    any path was meant to be async.
    """
    kind = f"{what} is an async function of {given}"
    if inspect.isclass(function):
        raise TypeError(f"{kind}, not the class {_named(function)}")
    check_is_function(what, function, given)
    if _returns_nothing(function):
        raise TypeError(f"{kind}: make {_named(function)} async")


def check_plain(what: str, function: object, *arguments: str) -> None:
    """`check_callable` for a function that must return at once."""
    if is_async(function):
        raise TypeError(
            f"{what} is a plain function of {_listed(arguments)}: nobody would await "
            f"{_named(function)}"
        )
    check_callable(what, function, *arguments)


def check_takes(
    how: str,
    function: object,
    arguments: Sequence[object],
    names: Iterable[str] = (),
    *,
    partly: bool = False,
) -> None:
    """Check that the parameters of `function` suit these arguments.

    A function that wraps another is judged by its own parameters: it may add arguments to those
    that it was given.

    Args:
        how: how it is called, in words.
        function: what is called.
        arguments: the positional arguments; only their number matters.
        names: the names of the keyword arguments.
        partly: whether there may be more arguments.

    Raises:
        TypeError: the parameters do not suit.
    """
    assert callable(function)
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # some functions written in C have no signature
        return
    bind = signature.bind_partial if partly else signature.bind
    try:
        bind(*arguments, **dict.fromkeys(names))
    except TypeError as exc:
        raise TypeError(f"{how}, which does not suit {_named(function)}: {exc}") from None


def is_async(function: object) -> bool:
    """Whether it is an async function, or a method, an object or a partial that calls one."""
    plain = _plain_function(function)
    return plain is not None and inspect.iscoroutinefunction(plain)


def awaitable(result: object, function: object) -> Awaitable[Any]:
    """The `result` of a function that was to be async, if it can be awaited.

    Raises:
        TypeError: it cannot be awaited.
    """
    if not inspect.isawaitable(result):
        raise TypeError(
            f"{_named(function)} should be async: it returned {result!r}, which cannot be awaited"
        )
    return result


def _listed(arguments: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(arguments[:-1]), arguments[-1])))


def _named(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))


def _plain_function(function: object) -> FunctionType | None:
    """The function in a method, in an object that can be called or in `functools.partial`."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    if not inspect.isroutine(function):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - the function is wanted
    function = getattr(function, "__func__", function)
    return function if isinstance(function, FunctionType) else None


def _has_yield(function: object) -> bool:
    plain = _plain_function(function)
    # A generator may be decorated with types.coroutine, and be awaited after all.
    return plain is not None and (
        inspect.isasyncgenfunction(plain)
        or (inspect.isgeneratorfunction(plain) and not plain.__code__.co_flags & _AWAITABLE)
    )


_AWAITABLE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE


def _returns_nothing(function: object) -> bool:
    plain = _plain_function(function)
    if plain is None or plain.__code__.co_flags & _AWAITABLE:
        return False
    instructions = list(dis.get_instructions(plain))
    returns = [
        (before, one)
        for before, one in pairwise(instructions)
        if one.opname in ("RETURN_VALUE", "RETURN_CONST")  # the second in Python 3.12 and 3.13
    ]
    return bool(returns) and all(
        one.argval is None
        if one.opname == "RETURN_CONST"
        else before.opname in _LOADS_A_CONSTANT and before.argval is None
        for before, one in returns
    )


_LOADS_A_CONSTANT = ("LOAD_CONST", "LOAD_COMMON_CONSTANT")  # the second for None in Python 3.15


# ---------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Check an `int` option.

    Raises:
        TypeError, ValueError: it is no whole number, or not from `low` to `high`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} is from {low} to {high}, not {value!r}")


# ---------------------------------------------------------------------------
# Addresses
# ---------------------------------------------------------------------------


def check_host(host: object) -> None:
    """Check that this may be a host name or an IP address. Only a look-up tells whether it is one.

    Raises:
        TypeError, ValueError: it cannot be one. The text says what to write instead. It does not
            repeat `host`, which may hold a password.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host is a str, not {type(host).__name__}")
    if not host:
        raise ValueError("the host is empty; this machine is 'localhost'")
    if not set(host).isdisjoint("/?#@"):
        raise ValueError("a host is a name or an IP address, not a URL or a part of one")
    if "[" in host or "]" in host:
        raise ValueError("give an IPv6 address without brackets here, like '::1'")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(
                "a host with a colon is an IPv6 address, which this is not; give the port by itself"
            ) from None


def is_name(host: str) -> bool:
    """Whether a host is a name, rather than an IP address in a notation that some system knows."""
    last = host.removesuffix(".").rpartition(".")[2]
    return not (":" in host or last.isdecimal() or last.lower().startswith("0x"))


def check_port(port: object, *, least: int = 0) -> None:
    """Check a TCP port.

    Raises:
        TypeError, ValueError: it is no whole number, or out of range.
    """
    check_whole("a port", port, least, 65535)


# ---------------------------------------------------------------------------
# TLS
# ---------------------------------------------------------------------------


#: What is wrong with a context for clients, and what to do about it.
FOR_CLIENTS = (
    "the ssl_context is for clients; a server's is made by "
    "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), and needs load_cert_chain"
)


def check_server_context(context: object) -> None:
    """Check a server's `ssl_context`.

    Raises:
        TypeError, ValueError: it is no TLS context, or one for clients.
    """
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext or None, not {context!r}")
    if context is not None and context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(FOR_CLIENTS)


def check_client_context(context: object, name: str = "ssl_context") -> None:
    """Check a client's `ssl_context`, or another option like it.

    Raises:
        TypeError, ValueError: it is no TLS context, or one for servers.
    """
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError(f"{name} is an ssl.SSLContext, or None for the system's trust")
    if context is not None and context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            f"the {name} is for servers; a client's is made by ssl.create_default_context()"
        )


def check_cookie_jar(jar: object) -> None:
    """Check a client's `cookies`.

    Raises:
        TypeError: it is no cookie jar. Its contents are secret, so only its type is told.
    """
    if jar is None:
        return
    # Whoever has a jar has loaded this already; nobody else is to wait for it.
    from http.cookiejar import CookieJar  # noqa: PLC0415

    if not isinstance(jar, CookieJar):
        raise TypeError(
            "cookies is an http.cookiejar.CookieJar, or None for none, not a "
            f"{type(jar).__name__}; httpx's Cookies have one in their attribute jar"
        )
