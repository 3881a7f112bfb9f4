"""`Context`: values found by their type."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trio_ws import Context, Headers, Request


@dataclass(frozen=True)
class User:
    name: str


def test_a_value_is_found_by_its_type() -> None:
    context = Context()
    assert repr(context) == "<Context with nothing>"
    assert User not in context
    assert context.get(User) is None
    context[User] = User("ada")
    context[str] = "text"
    assert context[User].name == "ada"
    assert context.get(str) == "text"
    assert User in context
    context[User] = User("grace")
    assert context[User] == User("grace")
    assert repr(context) == "<Context with User, str>"


def test_a_missing_value_says_what_to_do() -> None:
    with pytest.raises(KeyError, match=r"set request.context\[User\] in process_request"):
        Context()[User]


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="the value for User is a str"):
        Context()[User] = "ada"


def test_a_request_has_its_own_and_only_when_it_is_asked_for() -> None:
    request, other = (Request("GET", "/", Headers()) for _ in range(2))
    assert "context" not in vars(request)
    request.context[User] = User("ada")
    assert User not in other.context
    assert request == other
    assert request.with_body(b"x").context is request.context
