#!/usr/bin/env python3
"""How fast do rows move, beside what others use? The transfers of a training step, with each of them by turns.

  benchmarks/peer_study.py                                        # one host: MPI_Alltoallv and allgather, Open MPI
  benchmarks/peer_study.py --mpi ompi-c --mpi mpich-5 --python env/bin/python   # and MPICH, and PyTorch over Gloo
  benchmarks/peer_study.py --hosts 4 --python env/bin/python      # between emulated hosts of one rank; needs root
  benchmarks/peer_study.py --tokens 1024 --ranks 4 --case 0

Peers, each in one program with Crosspoint, on the same tokens and routings, by turns, iteration by iteration:
  plain      pack + MPI_Alltoallv + unpack (xpoint bench exchange), of every --mpi
  allgather  MPI_Allgatherv + select, MPI_Reduce_scatter back (the same with --baseline allgather), of every --mpi
  Gloo       PyTorch's all_to_all_single, through autograd (benchmarks/peers/torch_alltoall.py), with --python
Forward and backward, fp32, all checks on. With many experts per token Crosspoint sends one copy per rank.

Each cell is Crosspoint's time over the peer's: the median of the paired ratios, with the least and the largest of all
iterations of all runs. xpoint is built for every --mpi that launch/setup --mpi has installed.
Writes peers.json, peers.md and peers.svg to the results folder.
Needs: Swift, python3, matplotlib; with --python an environment with the Python package, mpi4py and PyTorch's CPU build.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import pictures
from transport import ROOT, bench, emulate, records, table

# Experts per token, experts, the exchange's options.
CASES = [(2, 16, ""), (8, 64, "copies=rank"), (16, 64, "copies=rank")]


def title(case):
    top_k, experts, options = case
    return f"top-{top_k} of {experts}" + (f", {options}" if options else "")


def build_folder(mpi):
    return ".build" if mpi == "ompi-c" else f".build-{mpi}"


def build(mpi):
    command = ["swift", "build", "-c", "release", "--product", "xpoint", "--scratch-path", build_folder(mpi)]
    packages = os.pathsep.join(filter(None, [os.environ.get("PKG_CONFIG_PATH"), str(ROOT / ".mpi")]))
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"CROSSPOINT_MPI": mpi, "PKG_CONFIG_PATH": packages})
    if done.returncode != 0:
        sys.exit(f"xpoint could not be built for {mpi}")


def repeats(iterations):
    return ["--iterations", iterations, "--warmup", max(1, min(4, iterations // 2))]


def peers(arguments):
    """{name: a function of launcher, tokens, case and iterations that gives the least, median and largest ratio}"""
    found = {}
    for mpi in arguments.mpi:
        for baseline in ("plain", "allgather"):
            def run(launcher, tokens, case, iterations, mpi=mpi, baseline=baseline):
                top_k, experts, options = case
                words = ["exchange", "--backward", "--baseline", baseline, "--tokens", tokens, "--top-k", top_k]
                words += ["--experts", experts, *repeats(iterations)]
                words += [word for pair in options.split() for word in ("--" + pair).split("=")]
                for record in bench(launcher, words, build_folder(mpi), CROSSPOINT_MPI=mpi):
                    if record["op"] == "exchange" and "medianRatio" in record:
                        return [record[which + "Ratio"] for which in ("min", "median", "max")]
            found[f"{baseline}, {mpi}"] = run
    if arguments.python:
        def run(launcher, tokens, case, iterations):
            top_k, experts, options = case
            command = [*launcher, arguments.python, ROOT / "benchmarks/peers/torch_alltoall.py", "--tokens", tokens]
            command += ["--top-k", top_k, "--experts", experts, "--options", options, *repeats(iterations)]
            ratios = records(command)["ratios"]
            return [min(ratios), statistics.median(ratios), max(ratios)]
        found["Gloo"] = run
    return found


def measure(arguments):
    """{(case, ranks, tokens): {peer: [[least, median, largest] of each run]}}, with another cell each time."""
    found = {}
    every = peers(arguments)
    for number in arguments.case or range(len(CASES)):
        case = CASES[number]
        for ranks in [arguments.hosts] if arguments.hosts else arguments.ranks or [2, 4]:
            launcher = emulate(ranks, arguments.rate) if arguments.hosts else [ROOT / "launch/mpirun", "-n", ranks]
            for tokens in arguments.tokens or ([64, 1024, 8192] if number == 0 else [64, 1024]):
                iterations = max(3, min(40, 8192 // tokens)) if arguments.hosts else max(8, min(200, 32768 // tokens))
                cells = found[number, ranks, tokens] = {name: [] for name in every}
                for _ in range(arguments.runs):
                    for name, run in every.items():
                        cells[name].append(run(launcher, tokens, case, iterations))
                print(f"{title(case)}, {ranks} ranks, {tokens} tokens: "
                      + ", ".join(f"{name} {cell(runs)}" for name, runs in cells.items()), flush=True)
                yield found


def summary(runs):
    """Least, median of the medians, largest."""
    return min(run[0] for run in runs), statistics.median(run[1] for run in runs), max(run[2] for run in runs)


def cell(runs):
    least, middle, largest = summary(runs)
    return f"{middle:.2f} ({least:.2f} … {largest:.2f})"


def draw(found, names, output):
    columns = sorted({(number, ranks) for number, ranks, _ in found})
    figure, axes = pictures.panels(len(columns), width=3.2 * len(columns) + 2.4, height=3.6, sharey=True)
    for panel, (number, ranks) in zip(axes, columns):
        tokens = sorted(count for n, r, count in found if (n, r) == (number, ranks))
        for index, name in enumerate(names):
            medians = [[run[1] for run in found[number, ranks, count][name]] for count in tokens]
            colour = pictures.PALETTE[1 + index]
            panel.plot(tokens, [statistics.median(run) for run in medians], color=colour,
                       marker=pictures.MARKERS[index], label=name)
            panel.fill_between(tokens, [min(run) for run in medians], [max(run) for run in medians], color=colour, alpha=0.2,
                               linewidth=0)
        panel.axhline(1, color=pictures.PALETTE[0], linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set_xticks(tokens, [str(count) for count in tokens])
        panel.set_title(f"{title(CASES[number])}\n{ranks} ranks")
        panel.set_xlabel("tokens per rank")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("Crosspoint's time ÷ the peer's")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpi", action="append", metavar="NAME", help="as for CROSSPOINT_MPI; repeatable (default ompi-c)")
    parser.add_argument("--python", metavar="PATH", help="the Python whose PyTorch is a peer too")
    parser.add_argument("--hosts", type=int, metavar="N", help="between N emulated hosts of one rank, instead of this one")
    parser.add_argument("--rate", default="1gbit", help="of emulated links (default 1gbit)")
    parser.add_argument("--ranks", action="append", type=int, help="ranks on this host; repeatable (default 2 and 4)")
    parser.add_argument("--tokens", action="append", type=int, help="per rank; repeatable (default 64, 1024 and, top-2, 8192)")
    parser.add_argument("--case", action="append", type=int, choices=range(len(CASES)),
                        help="; ".join(f"{number}: {title(case)}" for number, case in enumerate(CASES)) + "; repeatable (default all)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each cell (default 3)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results" / "peers", help="results folder")
    arguments = parser.parse_args()
    arguments.mpi = arguments.mpi or ["ompi-c"]
    if arguments.runs < 1:
        parser.error("--runs: at least 1")
    pictures.enter()
    for mpi in arguments.mpi:
        build(mpi)
    arguments.out.mkdir(parents=True, exist_ok=True)
    load = f"Load at the start: {os.getloadavg()[0]:.1f}"
    for found in measure(arguments):
        names = list(next(iter(found.values())))
        text = load + "\n\n" + table(
            ["case", "ranks", "tokens", *names],
            [[title(CASES[number]), str(ranks), str(tokens), *(cell(runs) for runs in cells.values())]
             for (number, ranks, tokens), cells in found.items()])
        record = [{"case": title(CASES[number]), "ranks": ranks, "tokens": tokens, "ratios": cells}
                  for (number, ranks, tokens), cells in found.items()]
        (arguments.out / "peers.json").write_text(json.dumps(record, indent=2) + "\n")
        (arguments.out / "peers.md").write_text(text + "\n")
    draw(found, names, arguments.out / "peers.svg")
    print("\n" + text)


if __name__ == "__main__":
    main()
