"""Draw the two pictures of the design page, as SVG: the way of the data, and the rooms by floors.

    python docs/tools/pictures.py      # writes docs/images/way-of-the-data.svg and docs/images/rooms.svg
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.test_layers import ROWS  # noqa: E402  (the table that is checked)

IMAGES = ROOT / "docs" / "images"

STYLE = """<style>
text { font: 14px system-ui, sans-serif; fill: #1f2430; text-anchor: middle; dominant-baseline: central }
.note { font-size: 12px; fill: #555c6e; text-anchor: start }
.stage { fill: #dfe4fb; stroke: #3f51b5 } .thing { fill: #fff; stroke: #8a90a3 }
.point { fill: #fdeccc; stroke: #b26a00 }
.floor { fill: #f3f4f8 } .arrow { stroke: #555c6e; stroke-width: 1.5; fill: none; marker-end: url(#tip) }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8z" fill="#555c6e"/></marker></defs>"""

# --- the way of the data: (name, kind, column, row); arrows by name ---
CELL, BOX = (118, 84), (92, 38)
THINGS = [
    ("prompts", "thing", 0, 0), ("sample", "stage", 1, 0), ("your pairs", "thing", 0, 1), ("pairs", "stage", 1, 1),
    ("score", "stage", 2, 0), ("label", "stage", 3, 0), ("cache", "stage", 2, 1), ("invert", "stage", 3, 1),
    ("train", "stage", 4, 1), ("model", "thing", 5, 1), ("generate", "stage", 5, 2), ("images", "thing", 4, 2),
    ("evaluate", "stage", 3, 2), ("report", "stage", 2, 2),
]
ARROWS = [
    ("prompts", "sample"), ("sample", "pairs"), ("your pairs", "pairs"), ("pairs", "score"), ("pairs", "cache"),
    ("score", "label"), ("label", "train"), ("cache", "invert"), ("label", "invert"), ("invert", "train"),
    ("train", "model"), ("model", "generate"), ("generate", "images"), ("images", "evaluate"), ("evaluate", "report"),
]

# --- the rooms ---
POINTS = {"labels", "noising", "objectives", "models", "rewards"}  # plug-in points
FLOOR, WIDTH = 38, 700
NOTES = {
    "core": "errors, records, artefacts, processes", "maths": "one function for each equation",
    "labels": "plug-in points", "models": "plug-in points; pair sets", "prompts": "lists of prompts",
    "sampling": "image sets and their store", "preparation": "the stages before training",
    "training": "the trainer; scores and intervals", "report": "tables, figures, pages",
    "audit": "faults of a pair set", "pipeline": "recipe and stages", "cost": "memory, disk, hours",
    "preflight": "checks before a run", "sweep": "grids of runs", "tiny": "the embedded world", "cli": "commands",
}


def box(x: float, y: float, width: float, kind: str, name: str) -> str:
    """A box with its name, centred at (x, y)."""
    height = BOX[1] if kind != "room" else 28
    shape = "point" if name in POINTS else "stage" if kind == "room" else kind
    corner = f'x="{x - width / 2:g}" y="{y - height / 2:g}"'
    rectangle = f'<rect class="{shape}" {corner} width="{width:g}" height="{height}" rx="6"/>'
    return f'{rectangle}<text x="{x:g}" y="{y:g}">{name}</text>'


def way_of_the_data() -> str:
    """Every stage, its inputs and its result."""
    at = {name: (70 + column * CELL[0], 40 + row * CELL[1]) for name, _, column, row in THINGS}
    lines = [_arrow(at[start], at[end]) for start, end in ARROWS]
    boxes = [box(*at[name], BOX[0], kind, name) for name, kind, _, _ in THINGS]
    return _svg("The way of the data", 730, 250, [*lines, *boxes])


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the edge of a box to the edge of another."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    if dx:  # leave at the side, enter at the side
        side = BOX[0] / 2 if dx > 0 else -BOX[0] / 2
        points = start[0] + side, start[1], end[0] - side, end[1]
    else:
        side = BOX[1] / 2 if dy > 0 else -BOX[1] / 2
        points = start[0], start[1] + side, end[0], end[1] - side
    return '<path class="arrow" d="M{:g} {:g} {:g} {:g}"/>'.format(*points)


def floors(rows: tuple[tuple[str, ...], ...]) -> list[list[str]]:
    """The rooms of each row of the table of layers, the lowest floor first."""
    named = [[name for name in row if name and "." not in name and not name.startswith("_")] for row in rows]
    return [row for row in named if row]


def rooms(rows: tuple[tuple[str, ...], ...]) -> str:
    """One floor for each row of the table of layers: a module imports from floors below its own."""
    parts, every = [], floors(rows)
    for number, floor in enumerate(reversed(every)):
        y, width = 26 + number * FLOOR, 390 / len(floor) - 10
        parts.append(f'<rect class="floor" x="10" y="{y - 17}" width="{WIDTH - 20}" height="34" rx="6"/>')
        parts += [box(20 + (place + 0.5) * (width + 10), y, width, "room", name) for place, name in enumerate(floor)]
        parts.append(f'<text class="note" x="430" y="{y}">{NOTES.get(floor[0], "")}</text>')
    return _svg("The rooms, the lowest floor at the bottom", WIDTH, 12 + FLOOR * len(every), parts)


def _svg(title: str, width: int, height: int, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
    paper = f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>'
    return "\n".join([head, f"<title>{title}</title>", STYLE, paper, *parts, "</svg>"]) + "\n"


def pictures() -> dict[str, str]:
    """File name -> SVG."""
    return {"way-of-the-data.svg": way_of_the_data(), "rooms.svg": rooms(ROWS)}


if __name__ == "__main__":
    for file_name, text in pictures().items():
        (IMAGES / file_name).write_text(text)
