"""How often an address may connect, and with how many connections at once.

This module owns the table of addresses, what is forgotten, and the line in the log about those that
are refused. It knows neither sockets nor responses; `door` does what follows.

What counts as one address is an IPv4 address, or the first 64 bits of an IPv6 address: whoever has
one of those mostly has all of the others that begin like it.

An address is kept while it has connections, and after that for as long as its bucket takes to fill.
At most `MOST_QUIET` are kept after their last connection. While there are that many, addresses that
are new share `SHARED` places, chosen by a hash that nobody outside can compute: who comes from very
many addresses cannot have one of them forgotten, and gets less rather than more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from math import ceil, inf
from typing import Final, final

from .._addresses import Address, ip_address, show_address
from .._buckets import Bucket
from .._log import LoggerLike

MOST_QUIET: Final = 10_000
SHARED: Final = 1024

#: A client whose address has too many connections is asked to come back after so many seconds.
RETRY_AFTER: Final = 10

#: There is at most one line in the log in so many seconds, however many are refused.
LOG_PAUSE: Final = 10.0


class TooMany(Exception):
    """An address comes too often. The text names the option that says so.

    Attributes:
        retry_after: in how many whole seconds it may come again.
    """

    def __init__(self, what: str, retry_after: int) -> None:
        super().__init__(what)
        self.retry_after = retry_after


@final
class Place:
    """What is known of one address."""

    __slots__ = ("bucket", "connections", "key")

    def __init__(self, key: Hashable, bucket: Bucket) -> None:
        self.key = key
        self.bucket = bucket
        self.connections = 0


@final
class Addresses:
    """See the module. Times are trio's.

    Args:
        rate: how often an address may come in a second, or `math.inf`.
        most: how many connections it may have, or `math.inf`.
    """

    def __init__(self, rate: float, most: float) -> None:
        self._rate = rate
        self._most = most
        #: For how long an address is kept that has no connections.
        self._keep_for = 0.0 if rate == inf else Bucket(rate, 0.0).depth
        self._places: dict[Hashable, Place] = {}
        #: Those without connections, by when the last ended.
        self._quiet: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._places)

    def enter(self, address: Address, now: float) -> Place | None:
        """Let in a connection. `leave` follows, unless this gives `None`: it has no address.

        Raises:
            TooMany: it may not come in now.
        """
        key: Hashable = _network(address)
        if key is None:
            return None
        self._forget(now)
        if key not in self._places and len(self._quiet) >= MOST_QUIET:
            key = hash(key) % SHARED
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(key, Bucket(self._rate, now))
        if place.connections >= self._most:
            raise TooMany(f"max_connections_per_address is {self._most:g}", RETRY_AFTER)
        seconds = place.bucket.missing(1, now)
        if seconds:
            raise TooMany(f"max_handshakes_per_second is {self._rate:g}", ceil(seconds))
        place.bucket.take(1, now)
        place.connections += 1
        self._quiet.pop(key, None)
        return place

    def leave(self, place: Place, now: float) -> None:
        """That connection is over."""
        place.connections -= 1
        if not place.connections:
            self._quiet[place.key] = now
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._quiet:
            key, since = next(iter(self._quiet.items()))
            if now < since + self._keep_for:
                break
            del self._quiet[key], self._places[key]


def _network(address: Address) -> str | bytes | None:
    if not isinstance(address, tuple):
        return None
    host = address[0]
    if ":" not in host:
        return host
    ip = ip_address(host)
    return ip.packed[:8] if isinstance(ip, ipaddress.IPv6Address) else str(ip)


@final
class RefusalLog:
    """Lines that say that addresses are refused: few, however many are."""

    def __init__(self, logger: LoggerLike) -> None:
        self._logger = logger
        self._silent_until = -inf
        self._untold = 0

    def note(self, address: Address, why: TooMany, now: float) -> None:
        if now < self._silent_until:
            self._untold += 1
            return
        more = f", and {self._untold} others since the last such line" if self._untold else ""
        self._logger.warning("%s refused with 429: %s%s", show_address(address), why, more)
        self._silent_until, self._untold = now + LOG_PAUSE, 0
