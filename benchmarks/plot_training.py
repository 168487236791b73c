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


def label(name, runs):
    """The name, what its runs end at, and what they sent, on average."""
    ends = [held_out[-1] if held_out else training[-1] for training, held_out in runs]
    bits = sum(end[2] for end in ends) / len(ends)
    sent = sum(end[1] for end in ends) / len(ends)
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    return f"{name}: {bits:.3f} bits per byte, {sent / 1e6:,.0f} MB sent{seeds}"


def top(runs):
    """The loss after a tenth of the steps: above it lies the fall from chance, which would flatten all the rest."""
    curves = [training or held_out for training, held_out in runs]
    return max(curve[len(curve) // 10][2] for curve in curves)


def draw(curves, title, output):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    runs = {}
    for name, path in curves:
        training, held_out = read(path)
        # As many points of a running mean as one can see.
        mean = running_mean(training, max(1, len(training) // 50))[::-max(1, len(training) // 200)][::-1]
        runs.setdefault(name, []).append((mean, held_out))
    figure, panels = pyplot.subplots(1, 2, figsize=(12, 5), sharey=True, constrained_layout=True)
    for index, (name, group) in enumerate(runs.items()):
        colour = f"C{index % 10}"
        for training, held_out in group:
            for panel, coordinate, unit in zip(panels, (0, 1), (1, 1e6)):
                for points, style in ((training, {"alpha": 0.4, "linewidth": 1}),
                                      (held_out, {"marker": "o", "markersize": 4, "linewidth": 1.6})):
                    # Nothing has been sent before the first step: no place for it on a logarithmic axis.
                    shown = [p for p in points if coordinate == 0 or p[1] > 0]
                    panel.plot([p[coordinate] / unit for p in shown], [p[2] for p in shown], color=colour, **style)
        panels[0].plot([], [], color=colour, marker="o", markersize=4, label=label(name, group))
    everything = [run for group in runs.values() for run in group]
    lowest = min(point[2] for training, held_out in everything for point in training + held_out)
    highest = top(everything)
    margin = 0.05 * (highest - lowest)
    if margin > 0:
        panels[0].set_ylim(lowest - margin, highest + margin)
    figure.suptitle(title, fontsize=13)
    panels[0].set_title("against steps", fontsize=11)
    panels[0].set_xlabel("step")
    panels[0].set_ylabel("loss (bits per byte)")
    panels[0].set_xlim(left=0)
    panels[0].legend(title="points: held-out text; faint: training text, running mean", loc="upper right", fontsize=9,
                     title_fontsize=8)
    panels[1].set_title("against what was sent", fontsize=11)
    panels[1].set_xlabel("bytes on the wire so far, all ranks (MB, logarithmic)")
    panels[1].set_xscale("log")
    # Where the first point within the picture lies; what is above it would only widen the axis.
    starts = [next(p[1] for p in training or held_out if p[1] > 0 and p[2] <= highest + margin)
              for training, held_out in everything if (training or held_out)[-1][1] > 0]
    if starts:
        panels[1].set_xlim(left=0.8 * min(starts) / 1e6)
    panels[1].xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    for panel in panels:
        panel.grid(alpha=0.3, which="both" if panel is panels[1] else "major")
        panel.spines[["top", "right"]].set_visible(False)
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the picture to write (.png, .svg, .pdf)")
    parser.add_argument("--title", default="Loss of a mixture-of-experts language model (moe-lm)")
    parser.add_argument("curves", nargs="+", metavar="NAME=METRICS.jsonl")
    arguments = parser.parse_args()
    for curve in arguments.curves:
        if "=" not in curve:
            parser.error(f"{curve!r} is not NAME=METRICS.jsonl")
    try:
        draw([curve.split("=", 1) for curve in arguments.curves], arguments.title, arguments.output)
    except ModuleNotFoundError:
        sys.exit("matplotlib is missing: run launch/setup --pictures, or python3 -m pip install matplotlib")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
