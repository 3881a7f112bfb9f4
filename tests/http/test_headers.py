"""Header fields as an immutable, case-insensitive multimap."""

from __future__ import annotations

import copy
import pickle
import time
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.helpers import least_cpu_seconds
from trio_ws import Headers
from trio_ws._http.headers import http_date, is_field_value, is_token, retry_after

REPEATED = Headers([("Cookie", "a=1"), ("X-A", "x"), ("COOKIE", "b=2")])


# As a mapping…


def test_names_are_case_insensitive() -> None:
    headers = Headers({"Content-Type": "text/plain"})
    assert headers["content-type"] == headers["CONTENT-TYPE"] == "text/plain"
    assert "content-type" in headers
    assert headers.get("X-Other") is None


def test_a_missing_field_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="X-Other"):
        Headers()["X-Other"]


def test_a_field_name_is_a_str() -> None:
    number: object = 3
    assert number not in Headers({"3": "x"})


def test_a_repeated_field_is_one_list() -> None:
    assert REPEATED["Cookie"] == "a=1, b=2"


def test_repeats_and_their_order_and_spelling_are_kept() -> None:
    assert REPEATED.get_all("cookie") == ("a=1", "b=2")
    assert REPEATED.get_all("X-Other") == ()
    assert REPEATED.fields == (("Cookie", "a=1"), ("X-A", "x"), ("COOKIE", "b=2"))


def test_iterating_gives_each_name_once_as_first_written() -> None:
    assert list(REPEATED) == ["Cookie", "X-A"]
    assert len(REPEATED) == 2
    assert dict(REPEATED) == {"Cookie": "a=1, b=2", "X-A": "x"}


@pytest.mark.parametrize(
    "fields",
    [{"A": "1", "B": "2"}, [("A", "1"), ("B", "2")], iter([("A", "1"), ("B", "2")])],
)
def test_headers_are_made_from_a_mapping_or_from_pairs(fields: Any) -> None:
    headers = Headers(fields)
    assert headers.fields == (("A", "1"), ("B", "2"))
    assert Headers(headers) == headers


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    assert Headers({"A": " \t b c \t"})["A"] == "b c"


def test_equality_ignores_the_case_of_names_only() -> None:
    assert Headers({"A": "x"}) == Headers({"a": "x"})
    assert hash(Headers({"A": "x"})) == hash(Headers({"a": "x"}))
    assert Headers({"A": "x"}) != Headers({"A": "X"})
    assert Headers([("A", "1"), ("A", "2")]) != Headers([("A", "2"), ("A", "1")])
    assert Headers({"A": "x"}) != {"A": "x"}


def test_its_repr_can_be_read_back_but_for_credentials() -> None:
    assert repr(REPEATED) == "Headers([('Cookie', '***'), ('X-A', 'x'), ('COOKIE', '***')])"


def test_headers_can_be_copied_and_pickled() -> None:
    assert copy.deepcopy(REPEATED) == pickle.loads(pickle.dumps(REPEATED)) == REPEATED


# As lists…


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        (["a"], ("a",)),
        (["a, b"], ("a", "b")),
        (["a", "b"], ("a", "b")),
        (["a,,b,", " , c\t"], ("a", "b", "c")),
        ([""], ()),
        ([], ()),
    ],
)
def test_the_members_of_a_list_are_found_over_all_lines(
    lines: list[str], tokens: tuple[str, ...]
) -> None:
    assert Headers([("List", line) for line in lines]).tokens("list") == tokens


# What is legal…


@pytest.mark.parametrize("text", ["a", "X-A", "!#$%&'*+-.^_`|~09azAZ"])
def test_a_token(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", ["", " ", "a b", "a:", "(", "a\n", "\0", "é", "\xff", "a,b", '"'])
def test_not_a_token(text: str) -> None:
    assert not is_token(text)


def test_which_characters_a_value_may_hold() -> None:
    legal = {chr(number) for number in range(0x200) if is_field_value(chr(number))}
    assert legal == {"\t", *map(chr, range(0x20, 0x7F)), *map(chr, range(0x80, 0x100))}


@pytest.mark.parametrize(
    ("name", "value"), [(b"A", "x"), ("A", b"x"), ("A", 1), ("A", None), (None, "x")]
)
def test_names_and_values_are_str(name: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="a header's name and value are str"):
        Headers([(name, value)])


@pytest.mark.parametrize("fields", ["A: b", b"A: b"])
def test_one_string_is_not_taken_for_pairs(fields: Any) -> None:
    with pytest.raises(TypeError, match="headers are a mapping or pairs of name and value"):
        Headers(fields)


async def test_checking_takes_linear_time() -> None:
    texts = ("a" * 10**6 + "\0", " " * 10**6 + "\n", "a " * 500_000 + "\r", "," * 10**6 + "\0")

    async def check() -> None:
        for text in texts:
            assert not is_token(text)
            assert not is_field_value(text)
        Headers({"A": "," * 10**6}).tokens("A")

    assert await least_cpu_seconds(check) < 1


# Dates…


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Sun Nov 16 08:49:37 1994", 784975777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228799),
        ("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
        ("Thu, 29 Feb 2023 00:00:00 GMT", None),
        ("Mon, 01 Jan 0000 00:00:00 GMT", None),
        ("Mon, 00 Jan 2001 00:00:00 GMT", None),
        ("Mon, 01 Jan 2001 24:00:00 GMT", None),
        ("Mon, 01 Jan 2001 00:60:00 GMT", None),
        ("Mon, 01 Jan 2001 00:00:61 GMT", None),
        ("Mon, 01 Jan 2001 00:00:00", None),
        ("Mon, 01 Jan 2001 00:00:00 +0000", None),
        ("mon, 01 jan 2001 00:00:00 gmt", None),
        ("Mon, 1 Jan 2001 00:00:00 GMT", None),
        (" Mon, 01 Jan 2001 00:00:00 GMT", None),
        ("Mon, 01 Jan 2001 00:00:00 GMT\n", None),
        ("", None),
    ],
)
def test_a_date_has_one_of_three_forms(text: str, seconds: int | None) -> None:
    assert http_date(text) == seconds


def test_a_year_of_two_digits_is_at_most_fifty_years_ahead() -> None:
    this_year = datetime.now(UTC).year
    for year in range(this_year - 49, this_year + 51):
        date = datetime(year, 6, 1, tzinfo=UTC)
        assert http_date(f"{date:%A, %d-%b-%y %H:%M:%S} GMT") == date.timestamp()


@given(st.integers(-(10**10), 10**11))
def test_every_date_that_is_sent_is_read_again(seconds: int) -> None:
    assert http_date(formatdate(seconds, usegmt=True)) == seconds


@given(st.one_of(st.text(), st.text("0123456789 :,-GMTSunJa+"), st.binary().map(str)))
def test_any_text_is_a_date_or_none(text: str) -> None:
    assert isinstance(http_date(text), int | None)


# When to try again…


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("007", 7.0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:49:38 GMT", 1.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1, 2", None),
        ("nan", None),
        ("\xb2", None),
        ("soon", None),
        ("9" * 13, None),
        ("9" * 5000, None),
        ("Sun, 31 Feb 1994 08:50:37 GMT", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value: str, seconds: float | None) -> None:
    fields = {"Retry-After": value, "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    assert retry_after(Headers(fields)) == seconds


def test_nothing_said_is_no_time_to_wait() -> None:
    assert retry_after(Headers()) is None
    assert retry_after(Headers([("Retry-After", "1"), ("Retry-After", "2")])) is None


def test_a_date_without_the_server_s_own_is_compared_with_our_clock() -> None:
    date = formatdate(time.time() + 3600, usegmt=True)
    for fields in ({"Retry-After": date}, {"Retry-After": date, "Date": "today"}):
        seconds = retry_after(Headers(fields))
        assert seconds is not None
        assert 3500 < seconds <= 3600
