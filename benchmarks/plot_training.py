#!/usr/bin/env python3
"""Draws the curves of moe-lm runs: bits per byte against steps, bytes on the wire and seconds of training.

  benchmarks/plot_training.py --output curves.png off=results/off.jsonl crosspoint=results/crosspoint.jsonl

Each argument is NAME=METRICS.jsonl, as written by `moe-lm train --metrics`. Several runs of one name are seeds: their mean
is a line, and what lies between the lowest and the highest of them a band. Held-out values have points; the training loss
is a thinner running mean.
The picture's format follows the suffix of --output. Needs matplotlib.
"""
import argparse
import json
import sys

import pictures

# Points of a curve: more cannot be told apart.
POINTS = 60


def read(path):
    """The training and held-out curves of one run, each {step: (bytes on the wire, seconds, bits per byte)}."""
    training, held_out = {}, {}
    wire_bytes = seconds = 0
    with open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                step = record["step"]
            except (ValueError, KeyError, TypeError) as error:
                sys.exit(f"{path}:{number}: not a metrics record ({error}); give a file written by moe-lm --metrics")
            wire_bytes, seconds = record.get("wireBytes", wire_bytes), record.get("seconds", seconds)
            if record.get("bitsPerByte") is not None:
                training[step] = (wire_bytes, seconds, record["bitsPerByte"])
            if record.get("valBitsPerByte") is not None:
                held_out[step] = (wire_bytes, seconds, record["valBitsPerByte"])
    if not training and not held_out:
        sys.exit(f"{path}: no record has bitsPerByte or valBitsPerByte")
    return running_mean(training), held_out


def running_mean(curve):
    """The same curve with each value replaced by the mean of the last ones, thinned, the last point kept."""
    window = max(1, len(curve) // 50)
    steps, points = list(curve), list(curve.values())
    means = {}
    for index in list(range(len(steps)))[::-max(1, -(-len(steps) // POINTS))][::-1]:
        recent = [point[-1] for point in points[max(0, index + 1 - window):index + 1]]
        means[steps[index]] = (*points[index][:-1], sum(recent) / len(recent))
    return means


def join(curves):
    """Points (step, mean bytes, mean seconds, mean, lowest, highest) at the steps that all runs of a name have."""
    joined = []
    for step in sorted(set.intersection(*(set(curve) for curve in curves))):
        sizes, seconds, values = zip(*(curve[step] for curve in curves))
        means = (sum(each) / len(each) for each in (sizes, seconds, values))
        joined.append((step, *means, min(values), max(values)))
    return joined


def label(name, training, held_out, seeds):
    """The name, what its runs end at, and what they sent, on average."""
    _, sent, seconds, bits, _, _ = (held_out or training)[-1]
    return f"{name}: {bits:.3f} bits per byte, {sent / 1e6:,.0f} MB sent, {seconds:.0f} s" + (f", {seeds} seeds" if seeds > 1 else "")


def groups(arguments):
    """By name: its training and held-out curves, and of how many seeds they are."""
    runs = {}
    for name, path in arguments:
        runs.setdefault(name, []).append(read(path))
    return {name: (join([run[0] for run in group]), join([run[1] for run in group]), len(group))
            for name, group in runs.items()}


def draw(groups, title, output):
    from matplotlib import ticker

    figure, panels = pictures.panels(3, width=15.0, sharey=True)
    for index, (name, (training, held_out, seeds)) in enumerate(groups.items()):
        colour = pictures.PALETTE[index % len(pictures.PALETTE)]
        marker = pictures.MARKERS[index % len(pictures.MARKERS)]
        for panel, coordinate, unit in zip(panels, (0, 1, 2), (1, 1e6, 1)):
            for points, style in ((training, {"linewidth": 1, "alpha": 0.6}),
                                  (held_out, {"linewidth": 1.6, "marker": marker, "markersize": 4})):
                # Nothing has been sent before the first step: no place for it on a logarithmic axis.
                shown = [p for p in points if p[coordinate] > 0 or coordinate != 1]
                x = [p[coordinate] / unit for p in shown]
                panel.plot(x, [p[3] for p in shown], color=colour, **style)
                if seeds > 1:
                    panel.fill_between(x, [p[4] for p in shown], [p[5] for p in shown], color=colour, alpha=0.2, linewidth=0)
        panels[0].plot([], [], color=colour, marker=marker, markersize=4, label=label(name, training, held_out, seeds))
    curves = [training or held_out for training, held_out, _ in groups.values()]
    every = [point for training, held_out, _ in groups.values() for point in training + held_out]
    lowest = min(point[4] for point in every)
    # The loss after a tenth of the steps: above it lies the fall from chance, which would flatten all the rest.
    highest = max(curve[len(curve) // 10][5] for curve in curves)
    margin = 0.05 * (highest - lowest)
    if margin > 0:
        panels[0].set_ylim(lowest - margin, highest + margin)
    figure.suptitle(title)
    panels[0].set_title("against steps")
    panels[0].set_xlabel("step")
    panels[0].set_ylabel("loss (bits per byte)")
    panels[0].set_xlim(left=0)
    band = "; band: all seeds" if any(seeds > 1 for _, _, seeds in groups.values()) else ""
    panels[0].legend(title="points: held-out text; thin: training text, running mean" + band, loc="upper right")
    panels[1].set_title("against what was sent")
    panels[1].set_xlabel("bytes on the wire so far, all ranks (MB, logarithmic)")
    panels[1].set_xscale("log")
    # Where the first point within the picture lies; what is above it would only widen the axis.
    starts = [next(p[1] for p in curve if p[1] > 0 and p[3] <= highest + margin) for curve in curves if curve[-1][1] > 0]
    if starts:
        panels[1].set_xlim(left=0.8 * min(starts) / 1e6)
    panels[1].xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    panels[2].set_title("against time")
    panels[2].set_xlabel("seconds of training")
    panels[2].set_xlim(left=0)
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the picture to write (.png, .svg, .pdf)")
    parser.add_argument("--title", default="Loss of a mixture-of-experts language model (moe-lm)")
    parser.add_argument("curves", nargs="+", metavar="NAME=METRICS.jsonl")
    arguments = parser.parse_args()
    for curve in arguments.curves:
        if "=" not in curve:
            parser.error(f"{curve!r} is not NAME=METRICS.jsonl")
    pictures.enter()
    try:
        draw(groups([curve.split("=", 1) for curve in arguments.curves]), arguments.title, arguments.output)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
