"""Results as one SVG: a panel for each case, a bar for each peer.

Drawn by hand: bars and words need no library. The greys are legible on white and on black alike, so
that it needs no knowledge of the page that it stands on.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from benchmarks.cases import MAIN, Case
from benchmarks.report import Figure, Report, show
from benchmarks.roster import KNOWN
from benchmarks.targets import PLAIN, SPEEDUPS

COLUMNS, PANEL_WIDTH, GAP = 2, 360, 24
LABEL_WIDTH, VALUE_WIDTH = 132, 78
BAR_WIDTH = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
LINE, BAR_HEIGHT, HEAD = 17, 11, 26

WORDS, OURS, OURS_TOO, THEIRS = "#767676", "#2f7ed8", "#6ca6e8", "#9a9a9a"
COLORS = {PLAIN: OURS, SPEEDUPS: OURS_TOO}

STYLE = (
    f"text {{ font: 11px system-ui, sans-serif; fill: {WORDS}; }}"
    " .title, .ours { font-weight: 600; }"
)


def to_svg(report: Report) -> str:
    """The main cases, two panels side by side."""
    cases = report.measured(MAIN)
    rows = [cases[start : start + COLUMNS] for start in range(0, len(cases), COLUMNS)]
    parts: list[str] = []
    top = 0
    for cases_of_row in rows:
        for column, case in enumerate(cases_of_row):
            left = column * (PANEL_WIDTH + GAP)
            parts += [f'<g transform="translate({left} {top})">', *panel(report, case), "</g>"]
        top += HEAD + LINE * max(len(report.figures[case.name]) for case in cases_of_row) + GAP
    width = COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" role="img"'
        ' aria-label="Results of each case, as in the table">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def panel(report: Report, case: Case) -> Iterator[str]:
    """One case. What has no WebSocket may run off the scale, which is that of the others."""
    figures = report.figures[case.name]
    comparable = [f.value for peer, f in figures.items() if KNOWN[peer].is_websocket]
    scale = max(comparable or [figure.value for figure in figures.values()])
    better = ", less is better" if case.less_is_better else ""
    yield f'<text class="title" y="12">{escape(case.title)}</text>'
    yield (f'<text x="{PANEL_WIDTH}" y="12" text-anchor="end">{escape(case.unit)}{better}</text>')
    order = [peer for peer in KNOWN if peer in figures]
    for position, peer in enumerate(order):
        yield from bar(peer, figures[peer], scale, HEAD + position * LINE)


def bar(peer: str, figure: Figure, scale: float, top: int) -> Iterator[str]:
    part = max(figure.value, 0) / scale
    width = max(BAR_WIDTH * min(part, 1), 1)
    base = top + BAR_HEIGHT - 2
    emphasis = ' class="ours"' if peer in COLORS else ""
    color = COLORS.get(peer, THEIRS)
    yield (
        f'<text{emphasis} x="{LABEL_WIDTH - 8}" y="{base}" text-anchor="end">'
        f"{escape(KNOWN[peer].title)}</text>"
    )
    yield (
        f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}"'
        f' fill="{color}"/>'
    )
    beyond = "→ " if part > 1 else ""
    yield (
        f'<text{emphasis} x="{LABEL_WIDTH + width + 5:.1f}" y="{base}">'
        f"{beyond}{show(figure.value)}</text>"
    )
