"""Points in a plane as a figure (SVG): the learning curve of a study, as mean over the seeds and a bar from the lowest to the
highest, or what ways of reading reach against what they cost."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 260, 48, 12, 30, 44
NUMBER_PX = 34
"""Numbers nearer to each other than this would overlap: the second is left out."""
WORDS_PX = 14
"""Of points nearer to each other, every second one has its words below it."""
COLOURS = ("#14508c", "#b3541e", "#3f7d3a")


@dataclass(frozen=True)
class Point:
    x: float
    """Per cent of the patches, number of slides, CPU seconds. Above 0."""
    mean: float
    low: float
    high: float
    words: str = ""
    """Written beside it."""


@dataclass(frozen=True)
class Panel:
    title: str
    x_label: str
    lines: dict[str, list[Point]]
    """By name; each is sorted by x."""
    joined: bool = True
    """Whether what lies between two points means anything."""


def figure(panels: Sequence[Panel]) -> str:
    """One SVG, the panels side by side; x is logarithmic. Raises ValueError when there is nothing to draw."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        raise ValueError("no study with a learning curve has been carried out")
    body = "".join(f'<g transform="translate({i * WIDTH},0)">{_panel(panel)}</g>' for i, panel in enumerate(drawn))
    width = WIDTH * len(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="#1b2430"><rect width="100%" height="100%" fill="#fff"/>'
        f"{body}</svg>\n"
    )


def _panel(panel: Panel) -> str:
    points = [p for line in panel.lines.values() for p in line]
    first, last = min(p.x for p in points), max(p.x for p in points)
    low, high = _rounded_out(min(p.low for p in points), max(p.high for p in points))
    span = math.log(last / first) or 1.0

    def x_of(value: float) -> float:
        return LEFT + 10 + math.log(value / first) / span * (WIDTH - LEFT - RIGHT - 20)

    def y_of(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="18" font-weight="600">{html.escape(panel.title)}</text>']
    for k in range(5):
        value = low + (high - low) * k / 4
        y = y_of(value)
        parts.append(f'<path d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}" stroke="#d5dbe2"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    written = -math.inf
    for x in sorted({p.x for p in points}):
        if x_of(x) - written >= NUMBER_PX:
            written = x_of(x)
            parts.append(f'<text x="{written:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(panel.x_label)}</text>'
    )
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_of(p.x):.1f},{y_of(p.mean):.1f}" for p in line)
        if panel.joined:
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        below = False
        for left, p in zip((None, *line), line, strict=False):
            x = x_of(p.x)
            parts.append(f'<path d="M{x:.1f},{y_of(p.low):.1f}V{y_of(p.high):.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y_of(p.mean):.1f}" r="3.5" fill="{colour}"/>')
            if p.words:
                below = not below and left is not None and x - x_of(left.x) < WORDS_PX
                y = y_of(p.mean) + (17 if below else -7)
                parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{html.escape(p.words)}</text>')
        parts.append(
            f'<text x="{WIDTH - RIGHT - 4}" y="{HEIGHT - BOTTOM - 8 - 16 * number}" text-anchor="end" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return "".join(parts)


def _rounded_out(low: float, high: float) -> tuple[float, float]:
    """To the next tenth, and never of no height."""
    low, high = math.floor(low * 10) / 10, math.ceil(high * 10) / 10
    return (low, high) if high > low else (low, low + 0.1)
