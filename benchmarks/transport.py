#!/usr/bin/env python3
"""How fast do rows move? Lossless transfers on one host, and bytes between emulated hosts, against MPI_Alltoallv.

  benchmarks/transport.py                                  # one host: 2 and 4 ranks, 16 to 8192 tokens each
  benchmarks/transport.py --host --hosts 4 --hosts 8       # and between emulated hosts of one rank; needs root
  benchmarks/transport.py --hosts 4 --rate 10gbit --pattern W2
  benchmarks/transport.py --tokens 1024 --ranks 4 --runs 5 --hidden 4096

On one host: the four transfers of a training step, hidden 1024, top-2 of 16 experts, fp32, with all checks, by
`xpoint bench exchange --backward`; plain is pack + MPI_Alltoallv + unpack. Between hosts: equal blocks to every rank, by
`xpoint bench alltoall`, as the share of the line, which is what one plain stream between two hosts gets; then the exchange
with few tokens. Each cell is the median of the paired ratios of all runs, with the least and the largest median of a run.

Writes transport.json, transport.md and transport.svg to the results folder.
Needs: a release build of xpoint, python3, matplotlib for the picture.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import pictures

ROOT = pictures.ROOT
OPS = ("dispatch", "combine", "combineBackward", "dispatchBackward", "exchange")


def bench(launcher, arguments, build=".build", **environment):
    """The records of one run of xpoint bench."""
    return records([*launcher, ROOT / build / "release/xpoint", "bench", *arguments], **environment)


def records(command, **environment):
    """What a program writes to its --json file."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "out.json"
        command = [str(word) for word in [*command, "--json", file]]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return json.loads(file.read_text())


def cell(values):
    """Median, and the least and largest where there are several."""
    middle = statistics.median(values)
    return f"{middle:.2f}" + (f" ({min(values):.2f} … {max(values):.2f})" if len(values) > 1 else "")


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
                     + ["| " + " | ".join(line) + " |" for line in lines])


def on_one_host(arguments):
    """{(ranks, tokens): {op: [median ratio of each run]}}"""
    found = {}
    for ranks in arguments.ranks or [2, 4]:
        for tokens in arguments.tokens or [16, 64, 1024, 2048, 4096, 8192]:
            iterations = max(12, min(200, 65536 // tokens))
            ratios = {op: [] for op in OPS}
            for _ in range(arguments.runs):
                for record in bench([ROOT / "launch/mpirun", "-n", ranks],
                                    ["exchange", "--backward", "--tokens", tokens, "--hidden", arguments.hidden, "--pattern",
                                     arguments.pattern, "--iterations", iterations]):
                    if record["implementation"] == "crosspoint":
                        ratios[record["op"]].append(record["medianRatio"])
            found[ranks, tokens] = ratios
            print(f"{ranks} ranks, {tokens} tokens: {cell(ratios['exchange'])}", flush=True)
    return found


def emulate(hosts, rate):
    return [ROOT / "launch/emulate", "--hosts", hosts, "--rate", rate, "--"]


def between_hosts(arguments):
    """The line in bytes per second, {(hosts, bytes): {implementation: [share of the line]}}, {hosts: [ratio, 16 tokens]}"""
    sizes = [1 << 18, 1 << 20, 1 << 22]

    def speeds(hosts, size):
        options = ["alltoall", "--min-bytes", size, "--max-bytes", size, "--iterations", 12]
        return {record["implementation"]: record["bytes"] / record["medianSeconds"]
                for record in bench(emulate(hosts, arguments.rate), options) if record["op"] == "alltoall"}

    line = max(speeds(2, sizes[-1])["plain"] for _ in range(arguments.runs))
    shares, few = {}, {}
    for hosts in arguments.hosts:
        for size in sizes:
            runs = [speeds(hosts, size) for _ in range(arguments.runs)]
            shares[hosts, size] = {name: [run[name] / line for run in runs] for name in ("crosspoint", "plain")}
            print(f"{hosts} hosts, {size >> 10} KiB: {cell(shares[hosts, size]['crosspoint'])} of the line", flush=True)
        few[hosts] = [record["medianRatio"] for _ in range(arguments.runs)
                      for record in bench(emulate(hosts, arguments.rate), ["exchange", "--tokens", 16, "--iterations", 100])
                      if record["implementation"] == "crosspoint" and record["op"] == "exchange"]
    return line, shares, few


def draw(found, output):
    figure, (panel,) = pictures.panels(1, width=7.0, height=4.0)
    for index, ranks in enumerate(sorted({ranks for ranks, _ in found})):
        tokens = sorted(tokens for r, tokens in found if r == ranks)
        runs = [found[ranks, count]["exchange"] for count in tokens]
        colour = pictures.PALETTE[1 + index]
        panel.plot(tokens, [statistics.median(run) for run in runs], color=colour, marker=pictures.MARKERS[index],
                   label=f"{ranks} ranks")
        panel.fill_between(tokens, [min(run) for run in runs], [max(run) for run in runs], color=colour, alpha=0.2, linewidth=0)
    panel.axhline(1, color=pictures.PALETTE[0], linewidth=1)
    panel.set_xscale("log", base=2)
    panel.set_ylim(0, 1.1)
    panel.set_xlabel("tokens per rank")
    panel.set_ylabel("time ÷ plain MPI_Alltoallv")
    panel.legend(title="all four transfers")
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", action="store_true", help="on this host (default if no --hosts is given)")
    parser.add_argument("--hosts", action="append", default=[], type=int, metavar="N", help="between N emulated hosts; repeatable")
    parser.add_argument("--rate", default="1gbit", help="of emulated links (default 1gbit)")
    parser.add_argument("--ranks", action="append", type=int, help="ranks on this host; repeatable (default 2 and 4)")
    parser.add_argument("--tokens", action="append", type=int, help="per rank; repeatable (default 16 to 8192)")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--pattern", default="uniform", help="which experts tokens want, see xpoint bench exchange")
    parser.add_argument("--runs", type=int, default=3, help="runs of each cell (default 3)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results" / "transport", help="results folder")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs: at least 1")
    pictures.enter()
    if not (ROOT / ".build/release/xpoint").exists():
        sys.exit("xpoint is missing: run `swift build -c release --product xpoint` first")
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts, record = [f"Load at the start: {os.getloadavg()[0]:.1f}"], {}
    if arguments.host or not arguments.hosts:
        found = on_one_host(arguments)
        record["host"] = [{"ranks": ranks, "tokens": tokens, "ratios": ratios} for (ranks, tokens), ratios in found.items()]
        texts.append(table(["ranks", "tokens", *OPS],
                           [[str(ranks), str(tokens), *(cell(ratios[op]) for op in OPS)] for (ranks, tokens), ratios in found.items()]))
        draw(found, arguments.out / "transport.svg")
    if arguments.hosts:
        line, shares, few = between_hosts(arguments)
        record["hosts"] = {"line": line, "few": few, "shares": [
            {"hosts": hosts, "bytes": size, "shares": of} for (hosts, size), of in shares.items()]}
        texts.append(f"The line: {line / 1e9:.4f} GB/s.\n\n" + table(
            ["hosts", "block", "crosspoint", "MPI_Alltoallv"],
            [[str(hosts), f"{size >> 10} KiB", cell(of["crosspoint"]), cell(of["plain"])] for (hosts, size), of in shares.items()]))
        texts.append(table(["hosts", "dispatch + combine of 16 tokens, time ÷ plain"],
                           [[str(hosts), cell(ratios)] for hosts, ratios in few.items()]))
    (arguments.out / "transport.json").write_text(json.dumps(record, indent=2) + "\n")
    (arguments.out / "transport.md").write_text("\n\n".join(texts) + "\n")
    print("\n\n".join(texts))


if __name__ == "__main__":
    main()
