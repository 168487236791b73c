#!/usr/bin/env python3
"""How near does xpoint plan come, and what does it say of clusters that are not there?

  benchmarks/plan.py                                       # predicted ÷ measured on 2, 4 and 8 emulated hosts; needs root
  benchmarks/plan.py --hosts 4 --rate 10gbit --tokens 4096
  benchmarks/plan.py --sweep --hosts 4                     # and from 2 to 4,096 ranks, with a picture

For each number of hosts (one rank each) it runs `xpoint tune`, then by turns `xpoint bench exchange --backward` for each kind
of copies and format, and compares the median of the runs with what `xpoint plan` predicts from the tuning. All emulated hosts
share this machine's cores: the plan is told so. The sweep takes the last tuning, with --ranks-per-node ranks on each node that
are taken to share memory as `xpoint tune` finds it on this host.

Writes plan.json and plan.md to the results folder, with --sweep plan.svg.
Needs: a release build of xpoint, python3, matplotlib for the picture.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import pictures
import transport

ROOT = pictures.ROOT
XPOINT = ROOT / ".build/release/xpoint"
CASES = [(copies, wire) for copies in ("expert", "rank") for wire in ("fp32", "bf16", "rotated:4")]


def call(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def layer(arguments):
    return ["--tokens", arguments.tokens, "--hidden", arguments.hidden, "--top-k", arguments.top_k, "--experts", arguments.experts]


def plan(tuning, arguments, nodes, *more):
    """{(copies, wire): what xpoint plan says, and the sum of its parts as "seconds"}"""
    output = arguments.out / "step.json"
    call(XPOINT, "plan", "--tuning", tuning, "--nodes", nodes, *layer(arguments), *more, "--json", output)
    steps = json.loads(output.read_text())
    output.unlink()
    parts = ("rounds", "links", "codes", "rows")
    return {(step["copies"], step["wire"]): step | {"seconds": sum(step[part] for part in parts)} for step in steps}


def compare(arguments, hosts):
    """[{copies, wire, predicted, measured: [median of each run]}] of emulated hosts, and where the tuning lies."""
    tuning = arguments.out / f"tuning-{hosts}.json"
    call(*transport.emulate(hosts, arguments.rate), XPOINT, "tune", "--output", tuning)
    formats = [word for wire in dict.fromkeys(wire for _, wire in CASES) for word in ("--wire", wire)]
    predicted = plan(tuning, arguments, hosts, "--ranks-per-core", max(1, hosts / os.cpu_count()), *formats)
    measured = {case: [] for case in CASES}
    for _ in range(arguments.runs):
        for copies, wire in CASES:
            records = transport.bench(
                transport.emulate(hosts, arguments.rate),
                ["exchange", "--backward", *layer(arguments), "--copies", copies, "--wire", wire, "--iterations", 8, "--warmup", 2])
            measured[copies, wire] += [record["medianSeconds"] for record in records
                                       if record["implementation"] == "crosspoint" and record["op"] == "exchange"]
    found = []
    for (copies, wire), runs in measured.items():
        seconds = predicted[copies, wire]["seconds"]
        found.append({"hosts": hosts, "copies": copies, "wire": wire, "predicted": seconds, "measured": runs})
        print(f"{hosts} hosts, {copies} {wire}: {seconds / statistics.median(runs):.2f}", flush=True)
    return found, tuning


def sweep(tuning, arguments):
    """[{ranks, copies, wire, seconds, bytesBetween}] from 2 nodes to 4,096 ranks; experts grow with the ranks."""
    found = []
    nodes = 2
    while nodes * arguments.ranks_per_node <= 4096:
        ranks = nodes * arguments.ranks_per_node
        arguments.experts = max(arguments.top_k, 4 * ranks)
        steps = plan(tuning, arguments, nodes, "--ranks-per-node", arguments.ranks_per_node, "--wire", "bf16", "--wire", "rotated:4")
        for (copies, wire), step in steps.items():
            found.append({"ranks": ranks, "copies": copies, "wire": wire, "bytesBetween": step["bytesBetween"],
                          "seconds": step["seconds"]})
        nodes *= 2
    return found


def draw(found, arguments, output):
    figure, axes = pictures.panels(2, width=10.0, height=4.0)
    for colour, copies in zip(pictures.PALETTE[1:], ("expert", "rank", "node")):
        for marker, wire in zip(pictures.MARKERS, ("bf16", "rotated:4")):
            points = sorted((f["ranks"], f["seconds"], f["bytesBetween"]) for f in found if (f["copies"], f["wire"]) == (copies, wire))
            for axis, column, unit in ((axes[0], 1, 1e3), (axes[1], 2, 1e-6)):
                axis.plot([p[0] for p in points], [p[column] * unit for p in points], color=colour, marker=marker, markersize=4,
                          linestyle="-" if wire == "bf16" else "--", label=f"a copy per {copies}, {wire}")
    for axis, label in zip(axes, ("predicted ms of the four transfers", "MB between nodes to the busiest rank")):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel(f"ranks, {arguments.ranks_per_node} a node")
        axis.set_ylabel(label)
    axes[1].legend()
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", action="append", type=int, metavar="N", help="emulated hosts; repeatable (default 2, 4, 8)")
    parser.add_argument("--rate", default="1gbit", help="of emulated links (default 1gbit)")
    parser.add_argument("--tokens", type=int, default=1024, help="per rank (default 1024)")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (default 3)")
    parser.add_argument("--sweep", action="store_true", help="predict up to 4,096 ranks")
    parser.add_argument("--ranks-per-node", type=int, default=8, help="of the sweep (default 8)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results" / "plan", help="results folder")
    arguments = parser.parse_args()
    if arguments.sweep:
        pictures.enter()
    if not XPOINT.exists():
        sys.exit("xpoint is missing: run `swift build -c release --product xpoint` first")
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts, record = [f"Load at the start: {os.getloadavg()[0]:.1f}"], {"compared": []}
    for hosts in arguments.hosts or [2, 4, 8]:
        found, tuning = compare(arguments, hosts)
        record["compared"] += found
    texts.append(transport.table(
        ["hosts", "copies", "wire", "predicted (ms)", "measured (ms)", "predicted ÷ measured"],
        [[str(f["hosts"]), f["copies"], f["wire"], f"{f['predicted'] * 1e3:.1f}", f"{statistics.median(f['measured']) * 1e3:.1f}",
          transport.cell([f["predicted"] / run for run in f["measured"]])] for f in record["compared"]]))
    if arguments.sweep:
        # Links within a node are this host's, those between nodes the emulated ones'.
        whole = json.loads(tuning.read_text())
        here = arguments.out / "tuning-here.json"
        call(ROOT / "launch/mpirun", "-n", 2, XPOINT, "tune", "--output", here)
        whole["withinNode"] = json.loads(here.read_text())["withinNode"]
        both = arguments.out / "tuning.json"
        both.write_text(json.dumps(whole))
        record["sweep"] = sweep(both, arguments)
        draw(record["sweep"], arguments, arguments.out / "plan.svg")
    (arguments.out / "plan.json").write_text(json.dumps(record, indent=2) + "\n")
    (arguments.out / "plan.md").write_text("\n\n".join(texts) + "\n")
    print("\n\n".join(texts))


if __name__ == "__main__":
    main()
