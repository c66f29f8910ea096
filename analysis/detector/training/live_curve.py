"""loss.html: the curves of a run, to be kept open in a browser while it goes on. No script, nothing from elsewhere."""

import csv
import html
import os
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 860, 260, 52, 30
_SMOOTH = 25
"""The line is the mean over so many rows; the pale one shows the rows."""
_MOST_POINTS = 800
Point = tuple[float, float]


def write_curve(folder: Path, *, headline: str, live: bool = True) -> None:
    """From loss.csv and validation.csv of the folder. `live`: the page loads itself anew every 15 s."""
    losses = _rows(folder / "loss.csv")
    judged = _rows(folder / "validation.csv")
    panels = [_panel("loss of region steps", _points(losses, "loss", kind="region"), smooth=True)]
    panels += [_panel("loss of patch steps", _points(losses, "loss", kind="patch"), smooth=True)]
    words = {
        "auc": "AUC on validation patches",
        "auc_with_hard": "the same, hard negatives among them",
        "field_auc": "AUC on fields of validation slides",
    }
    words |= {"dice": "Dice on fields of validation slides", "auc_coarse": "AUC on validation patches, coarse"}
    panels += [_panel(title, _points(judged, name), smooth=False) for name, title in words.items()]
    refresh = '<meta http-equiv="refresh" content="15">' if live else ""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}<title>Training</title>'
        "<style>body{font:15px system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b2430}"
        "svg{display:block;width:100%;height:auto}h2{font-size:1rem;margin:1.5rem 0 .3rem}</style></head><body>"
        f"<h1>Training</h1><p>{html.escape(headline)}</p>{''.join(panels)}</body></html>\n"
    )
    path = folder / "loss.html"
    unfinished = path.with_suffix(".part")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _points(rows: list[dict[str, str]], name: str, *, kind: str = "") -> list[Point]:
    chosen = [row for row in rows if row.get(name) and (not kind or row.get("kind") == kind)]
    return [(float(row["step"]), float(row[name])) for row in chosen]


def _panel(title: str, points: list[Point], *, smooth: bool) -> str:
    if not points:
        return ""
    ys = sorted(y for _, y in points)
    low, high = ys[0], ys[min(int(len(ys) * 0.99), len(ys) - 1)]  # one wild step must not flatten the rest
    high = high if high > low else low + max(abs(low) * 0.1, 1e-3)
    right = max(points[-1][0], 1.0)

    def place(point: Point) -> str:
        x = LEFT + point[0] / right * (WIDTH - LEFT - 10)
        y = 10 + (1 - min(max((point[1] - low) / (high - low), 0.0), 1.0)) * (HEIGHT - BOTTOM - 10)
        return f"{x:.1f},{y:.1f}"

    thin = points[:: max(1, len(points) // _MOST_POINTS)]
    pale = f'<polyline points="{" ".join(place(p) for p in thin)}" fill="none" stroke="#9db4cc" stroke-width="1"/>'
    line = _smoothed(points)[:: max(1, len(points) // _MOST_POINTS)] if smooth else thin
    dark = f'<polyline points="{" ".join(place(p) for p in line)}" fill="none" stroke="#14508c" stroke-width="2"/>'
    base = HEIGHT - BOTTOM
    axes = (
        f'<path d="M{LEFT},10V{base}H{WIDTH - 10}" fill="none" stroke="#5b6672"/>'
        f'<text x="{LEFT - 6}" y="18" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end">step {right:.0f}</text>'
    )
    label = f"{title}: last {points[-1][1]:.4g}"
    return (
        f'<h2>{html.escape(label)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}" '
        f'font-size="12" fill="#1b2430">{axes}{pale if smooth else ""}{dark}</svg>'
    )


def _smoothed(points: list[Point]) -> list[Point]:
    out, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - _SMOOTH][1] if i >= _SMOOTH else 0.0)
        out.append((x, total / min(i + 1, _SMOOTH)))
    return out
