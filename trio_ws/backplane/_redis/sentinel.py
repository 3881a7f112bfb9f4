"""Asking Redis Sentinel which server is the primary now.

This module owns that question. It knows nothing of what the server is for.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, final

import trio

from ..._nursery import open_bare_nursery
from .address import Address, BrokerLost, BrokerRefused
from .probe import probe

if TYPE_CHECKING:
    from .link import Link

OpenLink: TypeAlias = "Callable[[trio.Nursery, Address, ssl.SSLContext | None], Awaitable[Link]]"


class Primary(NamedTuple):
    """The server to use, and how many failovers there were before it became the primary."""

    address: Address
    failovers: int = 0


@final
class Sentinels:
    """The Sentinels in an address.

    Args:
        address: which Sentinels, for which primary, and how to log in there.
        password: how to log in to the Sentinels.
        ssl_context: for both.
        open_link: makes a connection.
        timeout: for one of them to answer, in seconds.
    """

    def __init__(
        self,
        address: Address,
        password: str | None,
        ssl_context: ssl.SSLContext | None,
        open_link: OpenLink,
        timeout: float,
    ) -> None:
        self._address = address
        self._name = address.primary
        self._ssl_context = ssl_context
        self._open_link = open_link
        self._timeout = timeout
        #: The one to ask first comes first.
        self._several = [
            Address(scheme=address.scheme, host=host, port=port, password=password)
            for host, port in address.sentinels
        ]

    async def find(self) -> Primary:
        """Ask one after the other, until one knows.

        Raises:
            BrokerLost: none of them can be reached.
            BrokerRefused: those that can be reached know no such primary, or do not let us in.
        """
        problems: list[BrokerLost | BrokerRefused] = []
        for _ in self._several:
            try:
                return await self._ask(self._several[0])
            except (BrokerLost, BrokerRefused) as exc:
                problems.append(exc)
            # It may be cut off from the others, and not know what they know: the next one first.
            self._several.append(self._several.pop(0))
        text = "; ".join(str(problem) for problem in problems)
        if any(isinstance(problem, BrokerRefused) for problem in problems):
            raise BrokerRefused(text)
        raise BrokerLost(text)

    async def _ask(self, sentinel: Address) -> Primary:
        answer: Any = None
        with trio.move_on_after(self._timeout) as limit:
            try:
                await probe(sentinel, self._ssl_context)
                async with open_bare_nursery() as nursery:
                    link = await self._open_link(nursery, sentinel, self._ssl_context)
                    answer = await link.request(b"SENTINEL", b"MASTER", self._name)
                    nursery.cancel_scope.cancel()
            except BrokerLost as exc:
                raise BrokerLost(f"the Sentinel at {_where(sentinel)}: {exc}") from exc.__cause__
            except BrokerRefused as exc:
                text = f"the Sentinel at {_where(sentinel)}: {exc}"
                raise BrokerRefused(text) from exc.__cause__
        if limit.cancelled_caught:
            raise BrokerLost(f"the Sentinel at {_where(sentinel)} does not answer")
        host, port, failovers = primary_in(answer)
        address = replace(self._address, host=host, port=port, sentinels=(), primary="")
        return Primary(address, failovers)

    async def watch(self, primary: Primary, interval: float) -> None:
        """Ask now and then, and raise `BrokerLost` when there is another primary.

        The old one may not know that it is no more, and go on as if nothing had happened.
        """
        while True:
            await trio.sleep(interval)
            try:
                found = await self.find()
            except (BrokerLost, BrokerRefused):
                continue  # the primary may be well all the same
            if found != primary:
                raise BrokerLost(f"the primary is now {found.address}")


def primary_in(answer: Any) -> tuple[str, int, int]:
    """Host, port and the number of failovers in an answer to SENTINEL MASTER.

    Raises:
        BrokerRefused: this is not such an answer.
    """
    try:
        return answer[b"ip"].decode(), int(answer[b"port"]), int(answer[b"config-epoch"])
    except (AttributeError, LookupError, TypeError, ValueError):
        raise BrokerRefused(f"a Sentinel answered {answer!r:.100}") from None


def _where(sentinel: Address) -> str:
    host = f"[{sentinel.host}]" if ":" in sentinel.host else sentinel.host
    return f"{host}:{sentinel.port}"
