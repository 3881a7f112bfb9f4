"""HTTP header fields: one immutable, case-insensitive multimap, checked when it is made.

This module owns which names, values, tokens and dates are legal (RFC 9110 section 5) and knows
nothing of requests, responses or sockets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast, final

from .._interning import interned
from .._redaction import masked_fields, masked_value

#: What the `headers` options and constructors accept.
HeadersLike: TypeAlias = "Headers | Mapping[str, str] | Iterable[tuple[str, str]]"

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")

# Visible characters, space, tab and the "obs-text" octets. CR, LF and NUL would allow response
# splitting; the other control characters have no use in a field (section 5.5).
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def is_token(text: str) -> bool:
    """Whether `text` is an RFC 9110 token. Names, methods and subprotocols are tokens."""
    return _TOKEN.fullmatch(text) is not None


def is_field_value(text: str) -> bool:
    """Whether `text` may be the value of a header field."""
    return _VALUE.fullmatch(text) is not None


@final
class Headers(Mapping[str, str]):
    """Header fields. Immutable; names are case-insensitive; repeats and order are kept.

    As a mapping, ``headers[name]`` is the field's value. A repeated field gives its values joined
    by ``", "``, which means the same by RFC 9110 section 5.3. (``Set-Cookie`` is the one exception:
    use `get_all`.) Iterating gives each name once, as first written.

    Args:
        fields: a mapping or an iterable of ``(name, value)`` pairs.

    Raises:
        ValueError: a name is no token, or a value holds CR, LF, NUL, another control character
            or one beyond U+00FF.
        TypeError: a name or a value is not a `str`.
    """

    __slots__ = ("_fields", "_names")

    _fields: tuple[tuple[str, str], ...]
    _names: tuple[str, ...]

    def __init__(self, fields: HeadersLike = ()) -> None:
        if isinstance(fields, Headers):  # checked already
            self._fields, self._names = fields._fields, fields._names
        elif isinstance(fields, Mapping):
            self._set(_checked(cast("Mapping[str, str]", fields).items()))
        else:
            self._set(_checked(fields))

    @classmethod
    def _parsed(cls, fields: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Make headers of fields that a parser has found to be well-formed.

        Latin-1 keeps every octet, so decoding cannot fail. Most names and many values are the same
        for every peer, so they are interned.
        """
        return cls._known(
            [
                (interned(name.decode("latin-1")), interned(value.decode("latin-1")))
                for name, value in fields
            ]
        )

    @classmethod
    def _plain(cls, lines: str) -> Headers:
        """Make headers of whole lines ``name: value``, CRLF included, found to be well-formed."""
        fields: list[tuple[str, str]] = []
        for line in lines[:-2].split("\r\n"):
            name, _, value = line.partition(": ")
            fields.append((interned(name), interned(value)))
        return cls._known(fields)

    @classmethod
    def _known(cls, fields: Iterable[tuple[str, str]]) -> Headers:
        """Make headers of fields that need no check."""
        headers = cls.__new__(cls)
        headers._set(tuple(fields))
        return headers

    def _set(self, fields: tuple[tuple[str, str], ...]) -> None:
        self._fields = fields
        #: In lower case, to be compared.
        self._names = tuple([interned(name.lower()) for name, _ in fields])

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for lower, (name, _) in zip(self._names, self._fields, strict=True):
            if lower not in seen:
                seen.add(lower)
                yield name

    def __len__(self) -> int:
        return len(set(self._names))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._names

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of the field `name`, in the order in which they were sent."""
        wanted = name.lower()
        if wanted not in self._names:
            return ()
        if self._names.count(wanted) == 1:
            return (self._fields[self._names.index(wanted)][1],)
        pairs = zip(self._names, self._fields, strict=True)
        return tuple([value for lower, (_, value) in pairs if lower == wanted])

    def tokens(self, name: str) -> tuple[str, ...]:
        """The comma-separated members of a list field, from all its lines (RFC 9110 5.6.1)."""
        values = self.get_all(name)
        if not values:
            return ()
        members = [part.strip(" \t") for part in ",".join(values).split(",")]
        return tuple([member for member in members if member])

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """Every ``(name, value)`` as it was sent, repeats included."""
        return self._fields

    def with_defaults(self, defaults: Headers) -> Headers:
        """These fields, after those of `defaults` whose names are not among them.

        Cookies are all kept: each is a thing of its own (RFC 6265 section 3).
        """
        own = {*self._names} - {"set-cookie"}
        pairs = zip(defaults._names, defaults._fields, strict=True)
        missing = [field for lower, field in pairs if lower not in own]
        return Headers._known([*missing, *self._fields])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self._comparable())

    def _comparable(self) -> tuple[tuple[str, str], ...]:
        return tuple(zip(self._names, (value for _, value in self._fields), strict=True))

    def __repr__(self) -> str:
        """It hides credentials, because it may go into a log.

        They are the values of Authorization and Cookie fields, and tokens among the subprotocols.
        """
        return f"Headers({masked_fields(self._fields)!r})"


def has_token(headers: Headers, name: str, wanted: str) -> bool:
    """Whether `wanted` is a member of the list field `name`, in upper or lower case.

    `wanted` itself has to be in lower case.
    """
    values = headers.get_all(name)
    if len(values) == 1 and values[0].lower() == wanted:  # the commonest case
        return True
    return wanted in [token.lower() for token in headers.tokens(name)]


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY, _YEAR = "(?P<day>[0-9]{2})", "(?P<year>[0-9]{4})"

# The three forms of RFC 9110 section 5.6.7, the one in use first. Each number has a fixed count of
# digits, so none is too large for `datetime`.
_DATES = [
    re.compile(rf"[MTWFS][a-z]{{2}}, {_DAY} {_MONTH} {_YEAR} {_TIME} GMT"),
    re.compile(rf"[MTWFS][a-z]+day, {_DAY}-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"[MTWFS][a-z]{{2}} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} {_YEAR}"),
]


def http_date(text: str) -> int | None:
    """Seconds since 1970, or `None` for what is no date of RFC 9110 section 5.6.7.

    The name of the day is not compared with the date.
    """
    found = next(filter(None, (form.fullmatch(text) for form in _DATES)), None)
    if found is None:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:  # a date more than 50 years ahead is in the past
        this_year = datetime.now(UTC).year
        year += this_year - this_year % 100
        year -= 100 if year > this_year + 50 else 0
    month, day = _MONTHS.index(found["month"]) + 1, int(found["day"])
    hour, minute = int(found["hour"]), int(found["minute"])
    second = 59 if found["second"] == "60" else int(found["second"])  # a leap second
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:  # the 31st of February
        return None


#: More digits than these are no number of seconds that anybody meant.
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{0,12})?")


def retry_after(headers: Headers) -> float | None:
    """Seconds to wait before another try, by the Retry-After field (RFC 9110 section 10.2.3).

    It is `None` if there is none, or none that can be understood. Fractions are understood, because
    some servers send them. A date is compared with the response's own Date if it has one: the two
    are by the same clock, while this machine's may be wrong. One in the past means 0.
    """
    value = headers.get("Retry-After", "")
    if _SECONDS.fullmatch(value):
        return float(value)
    then = http_date(value)
    if then is None:
        return None
    now = http_date(headers.get("Date", ""))
    return max(0.0, then - (time.time() if now is None else now))


def _checked(pairs: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    if isinstance(pairs, (str, bytes)):
        raise TypeError(f"headers are a mapping or pairs of name and value, not {pairs!r}")
    return tuple(_checked_field(name, value) for name, value in pairs)


def _checked_field(name: object, value: object) -> tuple[str, str]:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            f"a header's name and value are str, not {type(name).__name__} and "
            f"{type(value).__name__}"
        )
    if not is_token(name):
        raise ValueError(f"{name!r} is not a header name: letters, digits and -_.!#$%&'*+^`|~ only")
    if not is_field_value(value):
        raise ValueError(
            f"the value of header {name!r} holds a line break, a control character or one beyond "
            f"U+00FF: {masked_value(name, value)!r}"
        )
    return name, value.strip(" \t")
