"""How time and memory grow with objects, area, classes and batch: Mask R-CNN's training step, ours and torchvision's.

    hatch run bench growth [--along objects area classes batch] [--size 320 416] [--threads 1] [--picture growth.svg]

One quantity changes at a time, the others are those of the first column: 8 objects an image, 90 classes, batch 1. Every
point is a process of its own for each side, which makes three steps: the seconds (with one thread CPU seconds), the
median of the last two, and the peak above the loaded libraries. *Power* is the slope between the first and the last
point on logarithmic scales: 1 is linear.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from cpu import in_process, peak_of
from measuring import add_options, append

POINTS = {"objects": (1, 10, 100, 1000), "area": (1, 2, 4), "classes": (1, 90, 1203), "batch": (1, 2, 4)}
COLOURS = {"ours": "#1f6feb", "torchvision": "#b35900"}
WIDTH, HEIGHT = 260, 180


def at(along: str, value: int, options: argparse.Namespace) -> dict[str, Any]:
    """What a point asks of :func:`cpu.peak_of`; areas are multiples of the size's."""
    scale = math.sqrt(value) if along == "area" else 1
    size = [round(side * scale / 32) * 32 for side in options.size]
    return {"size": size, "count": value if along == "batch" else 1} | (
        {along: value} if along in ("objects", "classes") else {}
    )


def picture(table: dict[str, dict[str, list[tuple[int, float, float]]]]) -> str:
    """The seconds as an SVG: a panel for each quantity, both axes logarithmic."""
    panels = []
    for number, (along, sides) in enumerate(table.items()):
        points = [point for side in sides.values() for point in side]
        x_low, x_high = (math.log(end(point[0] for point in points)) for end in (min, max))
        y_low, y_high = (math.log(end(point[1] for point in points)) for end in (min, max))

        def place(value: float, low: float, high: float, length: int) -> float:
            return 30 + (math.log(value) - low) / max(high - low, 1e-9) * (length - 60)

        left = number * WIDTH
        panels.append(f'<text x="{left + 30}" y="16">{along}: {points[0][0]} to {points[-1][0]}</text>')
        for side, line in sides.items():
            corners = " ".join(
                f"{left + place(x, x_low, x_high, WIDTH):.0f},{HEIGHT - place(y, y_low, y_high, HEIGHT):.0f}"
                for x, y, _ in line
            )
            panels.append(f'<polyline points="{corners}" fill="none" stroke="{COLOURS[side]}" stroke-width="2"/>')
            y = line[-1][1]
            panels.append(
                f'<text x="{left + WIDTH - 28}" y="{HEIGHT - place(y, y_low, y_high, HEIGHT):.0f}" text-anchor="end" '
                f'fill="{COLOURS[side]}">{side} {y:.2f} s</text>'
            )
    size = f'width="{WIDTH * len(table)}" height="{HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(panels) + "\n</svg>\n"


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--along", nargs="+", default=list(POINTS), choices=list(POINTS))
    parser.add_argument("--points", type=int, nargs="+", help="the same for every quantity, instead of its own")
    parser.add_argument("--size", type=int, nargs=2, default=[320, 416], help="height and width")
    parser.add_argument("--picture", type=Path, help="SVG file to write")
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    table: dict[str, dict[str, list[tuple[int, float, float]]]] = {}
    print(f"{'':<16}{'ours':>10}{'torchvision':>14}{'ratio':>8}{'ours':>12}{'torchvision':>14}")
    for along in options.along:
        sides = table[along] = {side: [] for side in COLOURS}
        for value in options.points or POINTS[along]:
            for side, line in sides.items():
                line.append((value, *in_process(peak_of, "training", side, options.threads, at(along, value, options))))
            (_, own, own_peak), (_, peer, peer_peak) = (line[-1] for line in sides.values())
            print(
                f"{along:<9}{value:6d} {own:8.3f} s {peer:11.3f} s {peer / own:6.2f}x {own_peak:8.0f} MiB "
                f"{peer_peak:9.0f} MiB",
                flush=True,
            )
            seconds, peaks = {"ours": own, "torchvision": peer}, {"ours": own_peak, "torchvision": peer_peak}
            rows.append({"bench": "growth", "along": along, "value": value, "seconds": seconds, "mebibytes": peaks})
        powers = [
            math.log(line[-1][1] / line[0][1]) / max(math.log(line[-1][0] / line[0][0]), 1e-9)
            for line in sides.values()
        ]
        print(f"{'power':<15} {powers[0]:8.2f}   {powers[1]:11.2f}")
    if options.picture is not None:
        options.picture.write_text(picture(table))
    append(rows, options)


if __name__ == "__main__":
    main()
