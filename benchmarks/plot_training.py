#!/usr/bin/env python3
"""Draws the curves of moe-lm runs: bits per byte against steps and against bytes on the wire.

  benchmarks/plot_training.py --output curves.png off=results/off.jsonl crosspoint=results/crosspoint.jsonl

Each argument is NAME=METRICS.jsonl, as written by `moe-lm train --metrics`; several runs of one name (seeds) share a
colour. Held-out values are drawn as lines with points, the training loss as a faint running mean behind them.
The picture's format follows the suffix of --output. Needs matplotlib.
"""
import argparse
import json
import pathlib
import sys


def read(path):
    """The training and held-out curves of one run, each a list of (step, cumulative bytes on the wire, bits per byte)."""
    training, held_out = [], []
    wire_bytes = 0
    with open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                step = record["step"]
            except (ValueError, KeyError, TypeError) as error:
                sys.exit(f"{path}:{number}: not a metrics record ({error}); give a file written by moe-lm --metrics")
            wire_bytes = record.get("wireBytes", wire_bytes)
            if record.get("bitsPerByte") is not None:
                training.append((step, wire_bytes, record["bitsPerByte"]))
            if record.get("valBitsPerByte") is not None:
                held_out.append((step, wire_bytes, record["valBitsPerByte"]))
    if not training and not held_out:
        sys.exit(f"{path}: no record has bitsPerByte or valBitsPerByte")
    return training, held_out


def running_mean(points, window):
    """The same points with each value replaced by the mean of the last `window` values."""
    values = [value for _, _, value in points]
    means = []
    for index in range(len(values)):
        recent = values[max(0, index + 1 - window):index + 1]
        means.append(sum(recent) / len(recent))
    return [(step, size, mean) for (step, size, _), mean in zip(points, means)]


def draw(curves, output):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for name, _ in curves))
    colours = {name: f"C{index % 10}" for index, name in enumerate(names)}
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True, constrained_layout=True)
    labelled = set()
    for name, path in curves:
        training, held_out = read(path)
        training = running_mean(training, max(1, len(training) // 50))
        for panel, coordinate, unit in zip(panels, (0, 1), (1, 1e6)):
            for points, style in ((training, {"alpha": 0.35, "linewidth": 1}), (held_out, {"marker": "o", "markersize": 3})):
                # Nothing has been sent before the first step: no place for it on a logarithmic axis.
                shown = [p for p in points if coordinate == 0 or p[1] > 0]
                if shown:
                    panel.plot([p[coordinate] / unit for p in shown], [p[2] for p in shown], color=colours[name], **style)
        if name not in labelled:
            panels[0].plot([], [], color=colours[name], label=name)
            labelled.add(name)
    panels[0].set_xlabel("step")
    panels[0].set_ylabel("bits per byte")
    panels[0].legend(frameon=False)
    panels[1].set_xlabel("bytes on the wire (MB)")
    panels[1].set_xscale("log")
    for panel in panels:
        panel.grid(alpha=0.3)
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the picture to write (.png, .svg, .pdf)")
    parser.add_argument("curves", nargs="+", metavar="NAME=METRICS.jsonl")
    arguments = parser.parse_args()
    for curve in arguments.curves:
        if "=" not in curve:
            parser.error(f"{curve!r} is not NAME=METRICS.jsonl")
    try:
        draw([curve.split("=", 1) for curve in arguments.curves], arguments.output)
    except ModuleNotFoundError:
        sys.exit("matplotlib is missing: run launch/setup --pictures, or python3 -m pip install matplotlib")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
