"""The exception tree, close codes and close reasons."""

from __future__ import annotations

import copy
import errno
import pickle
import re

import pytest
import trio

import trio_ws
from trio_ws import (
    CloseCode,
    CloseReason,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    HandshakeError,
    HandshakeTimeout,
    Initiator,
    InvalidRequest,
    InvalidResponse,
    InvalidURL,
    ProxyError,
    Response,
    TooManyRedirects,
    UnexpectedMessage,
    WebSocketError,
    _errors,
)
from trio_ws._errors import MAX_CLOSE_REASON_BYTES, check_close_arguments, may_be_sent
from trio_ws.backplane import BackplaneError

REASON = CloseReason(CloseCode.GOING_AWAY, "later", Initiator.REMOTE)

EXAMPLES: list[WebSocketError] = [
    WebSocketError("text"),
    HandshakeError("text"),
    InvalidURL("http://x", "it must start with ws:// or wss://"),
    ConnectionFailed("text"),
    HandshakeTimeout("text"),
    InvalidResponse("text"),
    InvalidRequest("no Host", Response(400, {"X-A": "b"}, "no Host\n")),
    ConnectionRejected(Response(403, {"X-A": "b"}, b"go away")),
    TooManyRedirects("text"),
    ConnectionClosed(REASON),
    ConnectionEnded(REASON),
    ConnectionLost(CloseReason(1006, "", Initiator.LOCAL)),
    BackplaneError("text"),
    UnexpectedMessage("text"),
    UnexpectedMessage(b"binary"),
    ConnectionRejected(Response(429, {"Retry-After": "3"}), "wss://example.org/"),
    ProxyError("no", "HTTPS_PROXY", "http://***@p", Response(407)),
    ProxyError("no", "proxy", "socks5://p"),
    ConnectionFailed(errno.ECONNREFUSED, "refused"),
]


# The tree…


def drawn_tree() -> dict[str, tuple[str, set[str]]]:
    """The tree in the module's docstring: each name, its parent, and its other bases."""
    path: list[str] = []
    tree: dict[str, tuple[str, set[str]]] = {}
    for line in (_errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: +\(also (.*)\))?", line)
        if match is None:
            continue
        depth = len(match[1]) // 3
        del path[depth:]
        tree[match[2]] = (path[-1] if path else "Exception", set((match[3] or "").split()))
        path.append(match[2])
    return tree


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    tree = drawn_tree()
    assert len(tree) == 15
    for name, (parent, others) in tree.items():
        bases = {base.__name__: base for base in getattr(trio_ws, name).__bases__}
        assert parent in bases
        assert {_qualified(base) for base in bases.values()} == {parent, *others}


def _qualified(cls: type) -> str:
    return f"trio.{cls.__name__}" if cls.__module__ == "trio" else cls.__name__


def test_every_exception_of_the_package_is_in_the_tree() -> None:
    defined = {
        name
        for name in trio_ws.__all__
        if isinstance(value := getattr(trio_ws, name), type) and issubclass(value, BaseException)
    }
    assert defined == set(drawn_tree())


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (InvalidURL, ValueError),
        (ConnectionFailed, OSError),
        (HandshakeTimeout, trio.TooSlowError),
        (ConnectionClosed, trio.BrokenResourceError),
        (ConnectionEnded, trio.BrokenResourceError),
        (ConnectionEnded, trio.EndOfChannel),
        (ConnectionLost, trio.BrokenResourceError),
    ],
)
def test_code_that_knows_only_trio_and_python_can_catch_each_error(
    cls: type[WebSocketError], base: type[Exception]
) -> None:
    assert issubclass(cls, base)
    assert issubclass(cls, WebSocketError)


def test_only_an_orderly_end_is_an_end_of_channel() -> None:
    assert not issubclass(ConnectionLost, trio.EndOfChannel)
    assert not issubclass(ConnectionClosed, trio.EndOfChannel)


# What they say and carry…


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_exception_can_be_pickled(error: WebSocketError) -> None:
    assert_same(pickle.loads(pickle.dumps(error)), error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_exception_can_be_copied(error: WebSocketError) -> None:
    assert_same(copy.copy(error), error)
    assert_same(copy.deepcopy(error), error)


def assert_same(copied: WebSocketError, error: WebSocketError) -> None:
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EXAMPLES[2], "'http://x' is not a WebSocket URL: it must start with ws:// or wss://"),
        (EXAMPLES[6], "no Host"),
        (EXAMPLES[7], "the handshake ended with HTTP status 403: go away"),
        (
            ConnectionRejected(Response(503, body="Busy.\n"), "wss://h/"),
            "the handshake with wss://h/ ended with HTTP status 503: Busy.",
        ),
        (
            ConnectionRejected(
                Response(301, {"Location": "wss://me:pw@h/there?token=1"}), "ws://h/"
            ),
            (
                "the handshake with ws://h/ ended with HTTP status 301, a redirect to "
                "wss://***@h/there (see max_redirects)"
            ),
        ),
        (EXAMPLES[10], "1001 (going away), closed by the peer: later"),
        (EXAMPLES[11], "1006 (abnormal closure), closed by us"),
        (EXAMPLES[-1], "refused"),
    ],
)
def test_an_exception_says_in_words_what_happened(error: WebSocketError, text: str) -> None:
    assert str(error) == text


def test_a_rejection_in_a_log_does_not_bring_its_whole_body() -> None:
    error = ConnectionRejected(Response(403, body=b"x" * 65536))
    assert len(repr(error)) < 200
    assert len(str(error)) < 200


def test_a_rejection_says_when_to_try_again() -> None:
    assert ConnectionRejected(Response(503, {"Retry-After": "120"})).retry_after == 120
    assert ConnectionRejected(Response(503)).retry_after is None
    patient = ProxyError("busy", "proxy", "http://proxy", Response(503, {"Retry-After": "7"}))
    assert patient.retry_after == 7
    assert ProxyError("deaf", "proxy", "http://proxy").retry_after is None


# Close codes…


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
)
def test_a_close_frame_may_carry_it(code: int) -> None:
    assert may_be_sent(code)
    check_close_arguments(code, "")


@pytest.mark.parametrize(
    "code", [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535, 65536]
)
def test_a_close_frame_may_not_carry_it(code: int) -> None:
    assert not may_be_sent(code)
    with pytest.raises(ValueError, match=f"{code} may not be sent: use 1000"):
        check_close_arguments(code, "")


def test_a_close_reason_is_counted_in_bytes_of_utf_8() -> None:
    check_close_arguments(1000, "é" * (MAX_CLOSE_REASON_BYTES // 2) + "x")
    with pytest.raises(ValueError, match="takes 124 bytes in UTF-8; a Close frame holds 123"):
        check_close_arguments(1000, "é" * 62)


def test_a_close_reason_that_utf_8_cannot_express_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        check_close_arguments(1000, "\ud800")


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (1000.0, ""), (None, "")])
def test_a_close_code_of_another_type_is_a_type_error(code: int, reason: str) -> None:
    with pytest.raises(TypeError, match="a close code is an int"):
        check_close_arguments(code, reason)


@pytest.mark.parametrize("reason", [None, b"bye", 3])
def test_a_close_reason_of_another_type_is_a_type_error(reason: str) -> None:
    with pytest.raises(TypeError, match="a close reason is a str"):
        check_close_arguments(1000, reason)


# Close reasons…


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_a_close_that_both_sides_are_content_with_is_orderly(code: int) -> None:
    assert CloseReason(code, "", Initiator.REMOTE).orderly


@pytest.mark.parametrize("code", [1002, 1003, *range(1006, 1016), 3000, 4000])
def test_any_other_close_is_not_orderly(code: int) -> None:
    assert not CloseReason(code, "", Initiator.REMOTE).orderly


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1008, 1012, 1013, 3000, 4000])
def test_a_close_of_our_own_accord_is_orderly_whatever_its_code(code: int) -> None:
    assert CloseReason(code, "", Initiator.LOCAL).orderly
    assert not CloseReason(code, "", Initiator.LOCAL, failed=True).orderly


def test_no_close_frame_at_all_is_never_orderly() -> None:
    assert not CloseReason(1006, "", Initiator.LOCAL).orderly


def test_whether_it_failed_does_not_tell_close_reasons_apart() -> None:
    reason = CloseReason(1000, "", Initiator.LOCAL)
    failure = CloseReason(1000, "", Initiator.LOCAL, failed=True)
    assert reason == failure
    assert hash(reason) == hash(failure)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (CloseReason(1000, "", Initiator.LOCAL), "1000 (normal closure), closed by us"),
        (
            CloseReason(1011, "a bug", Initiator.REMOTE),
            "1011 (internal error), closed by the peer: a bug",
        ),
        (CloseReason(4001, "", Initiator.REMOTE), "4001, closed by the peer"),
    ],
)
def test_a_close_reason_tells_the_story(reason: CloseReason, text: str) -> None:
    assert str(reason) == text


def test_a_close_reason_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        REASON.code = 1000  # type: ignore[misc] # what is tested
