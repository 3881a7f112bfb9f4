"""Measurements in interleaved rounds: a slow minute of the machine hits every peer alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.cases import Case, Measurement
from benchmarks.processes import Stage
from benchmarks.roster import Peer

#: Sockets and files that a process has open besides its connections.
OTHER_DESCRIPTORS = 100


@dataclass
class Result:
    """What all rounds of one case with one peer gave."""

    case: Case
    peer: Peer
    measurements: list[Measurement] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(one.value for one in self.measurements)

    @property
    def details(self) -> dict[str, float]:
        """The median of each number that is kept besides."""
        names = self.measurements[0].details
        return {
            name: statistics.median(one.details[name] for one in self.measurements)
            for name in names
        }


def measure(
    cases: Iterable[Case],
    peers: Sequence[Peer],
    *,
    rounds: int,
    seconds: float,
    stage: Stage,
    remark: Callable[[str], None],
) -> Iterator[list[Result]]:
    """For each case, the results of all peers that can do it."""
    limit = stage.descriptor_limit - OTHER_DESCRIPTORS
    able = [peer for peer in peers if is_able(peer, remark)]
    for case in cases:
        if case.connections_needed > limit:
            remark(
                f"{case.name} left out: the system allows {limit:.0f} connections, see ulimit -n"
            )
            continue
        results = [Result(case, peer) for peer in able if case.suits(peer)]
        for _ in range(rounds):
            for result in results:
                result.measurements.append(case.measure(result.peer, stage, seconds))
        if results:
            yield results


def is_able(peer: Peer, remark: Callable[[str], None]) -> bool:
    """Whether what it needs is installed."""
    if peer.missing:
        remark(f"{peer.name} left out: {' and '.join(peer.missing)} is not installed")
        return False
    if peer.lacking:
        remark(f"{peer.name} does without {' and '.join(peer.lacking)}, with which it is faster")
    return True
