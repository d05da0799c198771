"""Plots as SVG, for a light and a dark page: bars with their spread, and lines with axes and units."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 760
LEFT = 150
RIGHT = 110
LINE_LEFT = 70
PLOT_HEIGHT = 220
BAR = 22
STYLE = """
svg { --ink: #1c2430; --faint: #5d6875; --grid: #e3e7ec; --page: #ffffff; background: var(--page);
  --c0: #2563a8; --c1: #b04c12; --c2: #2f7d4f; --c3: #8a3f9c; --c4: #7a6000; --c5: #b0294c; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6eaf0; --faint: #97a3b2; --grid: #2c3440; --page: #14181e;
    --c0: #6aa9ee; --c1: #f0935a; --c2: #63c088; --c3: #cf8fe0; --c4: #d9bb45; --c5: #f27a9a; } }
text { font: 12px system-ui, sans-serif; fill: var(--ink); } .title { font-weight: 600; font-size: 14px; }
.faint { fill: var(--faint); } .grid { stroke: var(--grid); }
.spread { stroke: var(--ink); stroke-width: 1.5; }
"""


class Panel(NamedTuple):
    height: int
    drawn: str


class Bar(NamedTuple):
    label: str
    value: float
    least: float
    most: float


Point = tuple[float, float, float, float]
"""x, then the middle, the least and the most of y."""


def page(title: str, panels: Sequence[Panel]) -> str:
    """Return one SVG with the panels below each other."""
    drawn = [_text(16, 28, title, "title")]
    y = 44
    for panel in panels:
        drawn.append(f'<g transform="translate(0 {y})">{panel.drawn}</g>')
        y += panel.height
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<rect width="{WIDTH}" height="{y}" fill="var(--page)"/>{"".join(drawn)}</svg>\n'
    )


def bars(title: str, unit: str, found: Sequence[Bar]) -> Panel:
    """Draw one bar for each, with a whisker from its least to its most."""
    top = _nice(max((bar.most for bar in found), default=0) or 1)
    scale = (WIDTH - LEFT - RIGHT) / top
    drawn = [_text(16, 20, title, "title")]
    bottom = 34 + BAR * len(found)
    for tick in _ticks(top):
        x = LEFT + tick * scale
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="30" y2="{bottom}"/>')
        drawn.append(_text(x, bottom + 14, f"{tick:g}", "faint", "middle"))
    drawn.append(_text(WIDTH - RIGHT + 24, bottom + 14, unit, "faint"))
    for place, bar in enumerate(found):
        y = 34 + BAR * place
        end = LEFT + bar.value * scale
        least, most = LEFT + bar.least * scale, LEFT + bar.most * scale
        drawn.append(_text(LEFT - 8, y + 13, bar.label, anchor="end"))
        place_and_size = f'x="{LEFT}" y="{y + 2}" width="{end - LEFT:.1f}" height="{BAR - 6}"'
        drawn.append(f'<rect {place_and_size} rx="2" fill="var(--c0)"/>')
        if bar.most > bar.least:
            drawn.append(
                f'<line class="spread" x1="{least:.1f}" x2="{most:.1f}" y1="{y + 10}" y2="{y + 10}"/>'
            )
        drawn.append(_text(most + 6, y + 13, f"{_short(bar.value)} {unit}"))
    return Panel(bottom + 34, "".join(drawn))


def lines(title: str, x_title: str, unit: str, series: Mapping[str, Sequence[Point]]) -> Panel:
    """Draw one line for each name; x grows by factors, y from 0."""
    points = [point for line in series.values() for point in line]
    top = _nice(max((point[3] for point in points), default=0) or 1)
    first, last = (math.log(f(max(point[0], 1) for point in points)) for f in (min, max))
    width, y0 = WIDTH - LINE_LEFT - RIGHT - 20, 34 + PLOT_HEIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        part = (math.log(max(x, 1)) - first) / (last - first) if last > first else 0.5
        return LINE_LEFT + part * width, y0 - y / top * PLOT_HEIGHT

    drawn = [_text(16, 20, title, "title"), _text(LINE_LEFT - 8, 34, unit, "faint", "end")]
    for tick in _ticks(top):
        _, y = at(1, tick)
        drawn.append(
            f'<line class="grid" x1="{LINE_LEFT}" x2="{LINE_LEFT + width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        if tick < top:  # the topmost place says the unit
            drawn.append(_text(LINE_LEFT - 8, y + 4, f"{tick:,g}", "faint", "end"))
    xs = sorted({point[0] for point in points})
    drawn += [_text(at(x, 0)[0], y0 + 16, f"{x:,g}", "faint", "middle") for x in xs]
    drawn.append(_text(LINE_LEFT + width / 2, y0 + 34, x_title, "faint", "middle"))
    labels: list[float] = []
    for number, (name, line) in enumerate(series.items()):
        colour = f"var(--c{number % 6})"
        line = sorted(line)
        path = " ".join("{:.1f},{:.1f}".format(*at(point[0], point[1])) for point in line)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, middle, least, most in line:
            px, py = at(x, middle)
            drawn.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>')
            if most > least:
                low, high = at(x, least)[1], at(x, most)[1]
                drawn.append(
                    f'<line class="spread" x1="{px:.1f}" x2="{px:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
                )
        if line:
            px, py = at(line[-1][0], line[-1][1])
            while any(abs(py - other) < 14 for other in labels):
                py -= 14
            labels.append(py)
            drawn.append(f'<g style="--ink: {colour}">{_text(px + 9, py + 4, name)}</g>')
    return Panel(y0 + 56, "".join(drawn))


def over_time(title: str, x_title: str, unit: str, points: Sequence[tuple[float, float]]) -> Panel:
    """Draw one line from 0 to its last x; y grows from 0."""
    top = _nice(max((y for _, y in points), default=0) or 1)
    end = max((x for x, _ in points), default=0) or 1
    width, height = WIDTH - LINE_LEFT - RIGHT, PLOT_HEIGHT / 2
    y0 = 34 + height
    drawn = [_text(16, 20, f"{title}, {unit}" if unit else title, "title")]
    for tick in _ticks(top):
        y = y0 - tick / top * height
        drawn.append(
            f'<line class="grid" x1="{LINE_LEFT}" x2="{LINE_LEFT + width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        drawn.append(_text(LINE_LEFT - 8, y + 4, f"{tick:,g}", "faint", "end"))
    drawn += [
        _text(LINE_LEFT + part * width, y0 + 16, f"{part * end:.3g}", "faint", "middle")
        for part in (0, 0.25, 0.5, 0.75, 1)
    ]
    drawn.append(_text(LINE_LEFT + width + 24, y0 + 16, x_title, "faint"))
    path = " ".join(f"{LINE_LEFT + x / end * width:.1f},{y0 - y / top * height:.1f}" for x, y in points)
    drawn.append(f'<polyline points="{path}" fill="none" stroke="var(--c0)" stroke-width="1.5"/>')
    return Panel(int(y0) + 34, "".join(drawn))


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _nice(value: float) -> float:
    """Return the next number whose quarters are short to write."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value * 0.999
    )


def _ticks(top: float) -> list[float]:
    return [round(top * part / 4, 12) for part in range(5)]
