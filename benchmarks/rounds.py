"""Measurements in interleaved rounds: a slow minute of the machine hits every peer alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.cases import Case, Measurement, Paced
from benchmarks.load import LoadFailed
from benchmarks.processes import ProcessorTime, Stage, SubjectFailed
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
        if case.connections > limit:
            remark(
                f"{case.name} left out: the system allows {limit:.0f} connections, see ulimit -n"
            )
            continue
        if isinstance(case, Paced) and not ProcessorTime.is_told():
            remark(f"{case.name} left out: the system does not tell processor time, as Linux does")
            continue
        results = [Result(case, peer) for peer in able if case.suits(peer)]
        for _ in range(rounds):
            results = [one for one in results if add_measurement(one, seconds, stage, remark)]
        if results:
            yield results


def add_measurement(
    result: Result, seconds: float, stage: Stage, remark: Callable[[str], None]
) -> bool:
    """Whether it succeeded. If not, this peer has no result in this case; the others go on."""
    try:
        result.measurements.append(result.case.measure(result.peer, stage, seconds))
    except (LoadFailed, SubjectFailed, OSError) as error:
        told = " ".join([str(error), *getattr(error, "__notes__", [])])
        remark(f"{result.peer.name} failed in {result.case.name}: {' '.join(told.split())}")
        return False
    return True


def is_able(peer: Peer, remark: Callable[[str], None]) -> bool:
    """Whether what it needs is installed."""
    if peer.missing:
        remark(f"{peer.name} left out: {' and '.join(peer.missing)} is not installed")
        return False
    if peer.lacking:
        remark(f"{peer.name} does without {' and '.join(peer.lacking)}, with which it is faster")
    return True
