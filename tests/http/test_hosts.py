"""Hosts: which names a list means, and which are refused as names."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws._http.hosts import LOOPBACK_HOSTS, Hosts


@pytest.mark.parametrize(
    ("names", "host", "known"),
    [
        (["example.org"], "example.org", True),
        (["example.org"], "Example.ORG:8765", True),
        (["Example.org."], "example.org", True),
        (["example.org"], "example.org.", True),
        (["example.org"], "www.example.org", False),
        (["example.org"], "example.org.evil.example", False),
        (["example.org"], "notexample.org", False),
        (["*.example.org"], "www.example.org", True),
        (["*.example.org"], "a.b.example.org:80", True),
        (["*.example.org"], "example.org", False),
        (["*.example.org"], "wwwexample.org", False),
        (["*"], "anything.example", True),
        (["*"], "[::1]", True),
        ([], "localhost", False),
        (["192.0.2.1"], "192.0.2.1:80", True),
        (["192.0.2.0/24"], "192.0.2.77", True),
        (["192.0.2.0/24"], "192.0.3.1", False),
        (["::1"], "[::1]", True),
        (["[::1]"], "[::1]:8765", True),
        (["::1"], "[0:0:0:0:0:0:0:1]", True),
        (["127.0.0.0/8"], "[::ffff:127.0.0.1]", True),
        (["fe80::/10"], "[fe80::1%25eth0]", True),
        (LOOPBACK_HOSTS, "localhost", True),
        (LOOPBACK_HOSTS, "a.localhost", True),
        (LOOPBACK_HOSTS, "127.1.2.3:80", True),
        (LOOPBACK_HOSTS, "128.0.0.1", False),
        (LOOPBACK_HOSTS, "", False),
    ],
)
def test_a_host_is_known_whatever_its_port_and_case(
    names: list[str], host: str, known: bool
) -> None:
    assert (host in Hosts(names)) is known


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "*.", "*example.org", "a.*.org", "**", "https://example.org", "example.org/"),
        *("example.org:80", "192.0.2.1/8", "exa mple.org", "[::1", "*.*"),
    ],
)
def test_what_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"a host is a name|stands for whole labels"):
        Hosts([name])


def test_a_host_is_a_str() -> None:
    names: Any = [3]
    with pytest.raises(TypeError, match="a host is a str, not 3"):
        Hosts(names)
