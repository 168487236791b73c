#!/usr/bin/env python3
"""Shows what wire formats and compensations cost in training: prints tables, and draws loss against bytes.

  benchmarks/training_study.py --study formats
  benchmarks/plot_formats.py --output formats.svg results/formats/study.json

Bytes are those of one direction (dispatch and combine, or their gradients), as a share of fp32: the other direction is fp32
in these runs and takes half of all. With clusters, both directions send fewer rows.
The picture's format follows the suffix of --output. Needs matplotlib.
"""
import argparse
import json
import pathlib
import sys

import pictures

DIRECTIONS = {"forward": "dispatch and combine", "gradients": "gradients"}


def signed(percent, digits):
    """A number with its sign, never minus zero."""
    return f"{round(percent, digits) + 0:+.{digits}f}".replace("-", "−")


def half_width(row):
    """Of the 95 % interval, in percent; none of a single seed."""
    low, high = row["intervalPercent"]
    return (high - low) / 2 if row["seeds"] > 1 else None


def cell(row):
    """Mean difference with its half-width, in percent."""
    half = half_width(row)
    return signed(row["differencePercent"], 1) + ("" if half is None else f" ± {half:.1f}") + " %"


def split(rows):
    """Rows by their kind: `forward` and `gradients` by format, clusters by kind and compensation."""
    kinds = {}
    for row in rows:
        kind, _, name = row["scheme"].partition(" ")
        if name:
            kinds.setdefault(kind, {})[name] = row
    return kinds


def direction_bytes(row):
    return 2 * row["wireFraction"] - 1


def tables(kinds):
    """Formats in both directions, then compensations for each kind of clusters."""
    lines = ["| format | bytes / fp32 | dispatch and combine | gradients |", "|---|---|---|---|"]
    for name, row in kinds["forward"].items():
        lines.append(f"| `{name}` | {100 * direction_bytes(row):.1f} % | {cell(row)} | {cell(kinds['gradients'][name])} |")
    clusters = {kind: rows for kind, rows in kinds.items() if kind not in DIRECTIONS}
    compensations = list(next(iter(clusters.values())))
    lines += ["", "| clusters | rows sent | " + " | ".join(f"`{name}`" for name in compensations) + " |",
              "|---" * (2 + len(compensations)) + "|"]
    for kind, rows in clusters.items():
        sent = [100 * row["rowsSentFraction"] for row in rows.values()]
        lines.append(f"| {kind} | {min(sent):.0f} – {max(sent):.0f} % | " + " | ".join(cell(rows[n]) for n in compensations) + " |")
    return "\n".join(lines)


def crowds(members):
    """Groups of points whose bytes are within 6 % of the one before; members are in the order of their bytes."""
    groups = []
    for point in members:
        if groups and point[1] < 1.06 * groups[-1][-1][1]:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def draw_formats(panel, points):
    """Points (format, bytes, loss, half-width of the interval or none): a line for each family with bits. Labels stand above
    their points, those of points with almost as many bytes below, one under the other."""
    for index, family in enumerate(["rotated", "entropy", "others"]):
        def belongs(name):
            return name.startswith(family + ":") if family != "others" else not name.startswith(("rotated:", "entropy:"))
        members = sorted((point for point in points if belongs(point[0])), key=lambda point: point[1])
        names, x, y, halves = zip(*members)
        colour, marker = pictures.PALETTE[index + 1], pictures.MARKERS[index]
        panel.errorbar(x, y, yerr=None if None in halves else halves, fmt=marker + ("" if family == "others" else "-"),
                       capsize=3, label=family, color=colour, alpha=0.85)
        for group in crowds(members):
            _, left, height, half = min(group, key=lambda point: point[2] - (point[3] or 0))
            text = "\n".join(point[0].removeprefix(family + ":") for point in group)
            place = {"xytext": (4, 6)}
            if len(group) > 1:
                height -= half or 0
                place = {"xytext": (0, -6), "ha": "center", "va": "top"}
            panel.annotate(text, (left, height), textcoords="offset points", fontsize=8, color=colour, **place)
    panel.set_xscale("log")
    panel.margins(y=0.15)


def draw(kinds, output):
    figure, panels = pictures.panels(2, sharey=True)
    for panel, (kind, title) in zip(panels, DIRECTIONS.items()):
        draw_formats(panel, [(name, 100 * direction_bytes(row), row["differencePercent"], half_width(row))
                             for name, row in kinds[kind].items()])
        panel.axhline(0, color="black", linewidth=0.8)
        panel.set_xticks([3, 5, 10, 20, 50], ["3 %", "5 %", "10 %", "20 %", "50 %"])
        panel.minorticks_off()
        panel.set_title(title)
        panel.set_xlabel("bytes of this direction / fp32 (the other direction is fp32)")
    bars = "; bars: 95 % interval" if kinds["forward"]["bf16"]["seeds"] > 1 else "; one seed"
    panels[0].set_ylabel("held-out loss against fp32 (%)" + bars)
    panels[0].legend()
    figure.suptitle("What wire formats cost in training (moe-lm)")
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the picture to write (.png, .svg, .pdf)")
    parser.add_argument("study", type=pathlib.Path, help="study.json of `training_study.py --study formats`")
    arguments = parser.parse_args()
    pictures.enter()
    try:
        kinds = split(json.loads(arguments.study.read_text())["rows"])
        print(tables(kinds))
        draw(kinds, arguments.output)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except (ValueError, KeyError, StopIteration) as error:
        sys.exit(f"{arguments.study} is not of --study formats ({error!r})")


if __name__ == "__main__":
    main()
