#!/usr/bin/env python3
"""Prints moe-lm runs side by side; the first is what the others are held against.

  benchmarks/compare_training.py off=results/off.json crosspoint=results/crosspoint.json

Each argument is NAME=SUMMARY.json, as written by `moe-lm train --summary`. Rows sent and wire bytes are those of the last
quarter of the training, bytes held against an fp32 row for every (token, expert) pair, which nobody would send where a token
has many experts, and with --against also against the MB of a run that somebody would. MB sent is the whole run's. Both count
what went over the wire in dispatch, combine and their gradients. all-to-all is the share of a step that these take; seconds
are those of all training steps.
"""
import argparse
import json
import sys

HEADER = ["run", "held-out bits per byte", "difference", "rows sent", "bytes / fp32", "MB sent", "ms per step", "all-to-all", "seconds"]


def summary(path):
    try:
        with open(path) as file:
            return json.load(file)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"{path}: not JSON ({error})")


def line(name, run, first, against):
    try:
        columns = [
            name,
            f"{run['valBitsPerByte']:.4f}",
            "" if run is first else f"{100 * (run['valBitsPerByte'] / first['valBitsPerByte'] - 1):+.2f} %",
            f"{100 * run['rowsSentFractionLastQuarter']:.1f} %",
            f"{100 * run['wireFractionLastQuarter']:.1f} %",
            f"{run['wireBytes'] / 1e6:,.0f}",
            f"{1e3 * run['stepSeconds']:.0f}",
            f"{100 * run['alltoallShare']:.0f} %",
            f"{run['steps'] * run['stepSeconds']:.0f}",
        ]
        if against:
            columns.insert(5, f"{run['wireBytes'] / against['wireBytes']:.2f}")
        return columns
    except KeyError as error:
        sys.exit(f"{name}: the summary has no {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="NAME", help="adds a column: bytes against this run's")
    parser.add_argument("runs", nargs="+", metavar="NAME=SUMMARY.json")
    arguments = parser.parse_args()
    runs = []
    for argument in arguments.runs:
        name, separator, path = argument.partition("=")
        if not separator:
            parser.error(f"{argument!r} is not NAME=SUMMARY.json")
        runs.append((name, summary(path)))
    against = dict(runs).get(arguments.against)
    if arguments.against and not against:
        parser.error(f"--against {arguments.against}: no such run")
    header = HEADER[:5] + [f"bytes / {arguments.against}"] * bool(against) + HEADER[5:]
    table = [header] + [line(name, run, runs[0][1], against) for name, run in runs]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    main()
