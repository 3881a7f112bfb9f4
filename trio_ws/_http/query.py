"""The query of a request: names and values, taken apart as forms and links write them.

This module owns what the text after the ``?`` means. `values` finds that text in a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final
from urllib.parse import parse_qsl


@final
class QueryParams(Mapping[str, str]):
    """The names and values of a query. Immutable; repeats and their order are kept.

    As a mapping, ``params[name]`` is the value. If a name is repeated, it is the first value, and
    `get_all` gives every one. Iterating gives each name once.

    Names and values are decoded: a ``+`` is a space, ``%41`` an ``A``, and the bytes are UTF-8.
    Nothing in a query is an error: a malformed escape (``%zz``) stays as it is, bytes that are not
    UTF-8 become U+FFFD, and a name without ``=`` has the value ``""``.
    """

    __slots__ = ("_pairs",)

    def __init__(self, query: str) -> None:
        self._pairs = tuple(parse_qsl(query, keep_blank_values=True))

    def __getitem__(self, name: str) -> str:
        for found, value in self._pairs:
            if found == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of `name`, in the order in which they were sent."""
        return tuple(value for found, value in self._pairs if found == name)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every ``(name, value)``, repeats included."""
        return self._pairs

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, QueryParams) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"QueryParams({list(self._pairs)!r})"
