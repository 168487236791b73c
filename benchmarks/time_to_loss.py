#!/usr/bin/env python3
"""How soon is a loss reached? Trains moe-lm through each scheme, paired by seed, and draws held-out loss against seconds.

  benchmarks/time_to_loss.py                                           # one host, 3 seeds
  benchmarks/time_to_loss.py --emulate 1gbit --emulate 100mbit         # 4 emulated hosts at two rates; needs root
  benchmarks/time_to_loss.py --simulate 125 --simulate 12.5 --latency 50   # simulated links (MB/s, µs), no privileges
  benchmarks/time_to_loss.py --host --simulate 125 --seeds 1 --steps 40    # a quick look at two places
  benchmarks/time_to_loss.py --model '--width 256 --heads 4 --experts 16 --expert-width 512' --out results/wide

Schemes: plain (every row in fp32 over pack + MPI_Alltoallv + unpack), off (the same through Crosspoint), bf16-copies (one
copy per rank in bf16), lsh-moe (as published), crosspoint and memory (entropy codes relative to a memory); their options are
those of benchmarks/training_study.py.
Runs take turns: all schemes of a seed, then the next seed. Runs that are already in the results folder are not repeated: an
interrupted study goes on where it stopped. Seconds are those of training steps, evaluations not included.

For each place and scheme it prints the step, the share of the all-to-all, the time until the final held-out loss of off with
the same seed is reached (and until within 0.5 % of it), that time against plain's and bf16-copies' (min, median, max over
seeds: above 1, the scheme is faster), and where each second goes. Writes time.json, time.md and, for each place, a picture.
Needs: a release build (launch/setup, swift build -c release), python3; matplotlib for the pictures.
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

import pictures
import training_study

ROOT = pictures.ROOT
COPIES, COMPRESSION, MEMORY = (dict(training_study.STUDIES[name]["schemes"]) for name in ("copies", "compression", "memory"))
OFF = training_study.BASELINE[1]
SCHEMES = {
    "plain": f"{OFF} --transport plain",
    "off": OFF,
    "bf16-copies": COPIES["bf16-copies"],
    "lsh-moe": COMPRESSION["lsh-moe"],
    "crosspoint": COPIES["crosspoint"],
    "memory": MEMORY["memory"],
}
AGAINST = ("plain", "bf16-copies")
# How near to off's final loss counts as reached, the loss being held out and noisy.
TOLERANCES = (0.0, 0.005)


def places(arguments):
    """Where to train: a name, what launches the ranks, and options of moe-lm."""
    ranks = str(arguments.ranks)
    found = []
    if arguments.host or not (arguments.emulate or arguments.simulate):
        found.append((f"host-{ranks}", [ROOT / "launch" / "mpirun", "-n", ranks], []))
    for rate in arguments.emulate:
        found.append((f"emulated-{ranks}-{rate}", [ROOT / "launch" / "emulate", "--hosts", ranks, "--rate", rate, "--"], []))
    for speed in arguments.simulate:
        link = ["--ranks-simulated", ranks, "--link-speed", f"{speed:g}", "--link-latency", str(arguments.latency)]
        found.append((f"simulated-{ranks}-{speed:g}MBs-{arguments.latency}us", [], link))
    return found


def train(folder, launcher, link, scheme, seed, arguments):
    """The summary and the held-out curve, [(seconds, loss)], of one run; kept if it is there and of the same options."""
    stem = folder / f"{scheme}-seed{seed}"
    summary, metrics, options, log = (stem.with_suffix(s) for s in (".summary.json", ".metrics.jsonl", ".options", ".log"))
    command = [*launcher, arguments.binary, "train", *link, *shlex.split(arguments.model), *shlex.split(SCHEMES[scheme]),
               "--steps", arguments.steps, "--eval-every", arguments.eval_every, "--seed", seed]
    if arguments.data:
        command += ["--data", arguments.data]
    command = [str(word) for word in command]
    wanted = shlex.join(command) + "\n"
    done = summary.exists() and not json.loads(summary.read_text())["interrupted"]
    if done and not (options.exists() and options.read_text() == wanted):
        sys.exit(f"{summary} is of other options than {wanted.strip()!r}: remove it or use another --out")
    if not done:
        folder.mkdir(parents=True, exist_ok=True)
        options.write_text(wanted)
        for old in (summary, metrics):
            old.unlink(missing_ok=True)
        print(f"{stem.parent.name} {stem.name}: {wanted.strip()}", flush=True)
        # A rank is one thread; the launchers say so, too.
        environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
        with open(log, "w") as output:
            code = subprocess.run([*command, "--metrics", metrics, "--summary", summary], stdout=output,
                                  stderr=subprocess.STDOUT, env=environment).returncode
        if code != 0 or not summary.exists() or json.loads(summary.read_text())["interrupted"]:
            sys.exit(f"{stem.name} failed or was interrupted (exit code {code}); see {log}")
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    curve = [(r["seconds"], r["valBitsPerByte"]) for r in records if r.get("valBitsPerByte") is not None]
    return json.loads(summary.read_text()), curve


def seconds_until(curve, loss):
    """When the held-out curve first falls to a loss, between two evaluations by a straight line; None if it does not."""
    before = None
    for seconds, value in curve:
        if value <= loss:
            if before is None or before[1] <= value:
                return seconds
            return before[0] + (seconds - before[0]) * (before[1] - loss) / (before[1] - value)
        before = (seconds, value)
    return None


def phases(summary):
    """Seconds of a step by phase over all blocks; those of transfers by part, as `a2a PART`."""
    sums = {}
    for name, seconds in summary["phaseSeconds"].items():
        words = name.split(".")
        key = f"a2a {words[-1]}" if len(words) == 3 else words[-1]
        sums[key] = sums.get(key, 0) + seconds
    return sums


def spread(values):
    """[min, median, max, how many, of how many] of the runs that got there; None where none did."""
    there = [value for value in values if value is not None]
    return [min(there), statistics.median(there), max(there), len(there), len(values)] if there else None


def rows(runs):
    """One row per scheme of a place. `runs`: {scheme: {seed: (summary, curve)}}."""
    targets = {seed: curve[-1][1] for seed, (_, curve) in runs["off"].items()}
    until = {scheme: [{seed: seconds_until(curve, targets[seed] * (1 + t)) for seed, (_, curve) in of.items()}
                      for t in TOLERANCES] for scheme, of in runs.items()}

    def ratios(scheme, other, place):
        pairs = [(until[other][place][seed], until[scheme][place][seed]) for seed in targets]
        return spread([None if None in pair else pair[0] / pair[1] for pair in pairs])

    return [{
        "scheme": scheme,
        "stepSeconds": spread([s["stepSeconds"] for s, _ in of.values()]),
        "alltoallShare": spread([s["alltoallShare"] for s, _ in of.values()]),
        "valBitsPerByte": statistics.mean(s["valBitsPerByte"] for s, _ in of.values()),
        "secondsUntilOffsLoss": [spread(list(times.values())) for times in until[scheme]],
        "fasterThan": {other: [ratios(scheme, other, place) for place in range(len(TOLERANCES))] for other in AGAINST},
        "phaseSeconds": {key: statistics.mean(phases(s).get(key, 0) for s, _ in of.values())
                         for key in sorted({key for s, _ in of.values() for key in phases(s)})},
    } for scheme, of in runs.items()]


def cell(values, digits=2, scale=1.0):
    if values is None:
        return "not reached"
    texts = [f"{scale * value:.{digits}f}" for value in values[:3]]
    text = texts[1] if len(set(texts)) == 1 else f"{texts[1]} ({texts[0]} … {texts[2]})"
    return text if values[3] == values[4] else f"{text}, {values[3]} of {values[4]} runs"


def markdown(place, table):
    near = f"within {100 * TOLERANCES[1]:g} %"
    lines = [f"### {place}", "",
             "| scheme | bits per byte | ms per step | all-to-all | s until off's loss | " + near + " | "
             + " | ".join(f"{other} ÷ it | {near}" for other in AGAINST) + " |",
             "|---" * (6 + 2 * len(AGAINST)) + "|"]
    for row in table:
        lines.append(" | ".join([
            f"| {row['scheme']}", f"{row['valBitsPerByte']:.4f}", cell(row["stepSeconds"], 1, 1e3),
            cell(row["alltoallShare"], 1, 100) + " %", *(cell(times, 1) for times in row["secondsUntilOffsLoss"]),
            *(cell(ratio) for other in AGAINST for ratio in row["fasterThan"][other])]) + " |")
    # The largest first; what no scheme spends a tenth of a millisecond on would only widen the table.
    most = {key: max(row["phaseSeconds"].get(key, 0) for row in table) for row in table for key in row["phaseSeconds"]}
    keys = sorted((key for key in most if most[key] >= 1e-4), key=lambda key: -most[key])
    lines += ["", "Milliseconds of a step:", "", "| scheme | " + " | ".join(keys) + " |", "|---" * (1 + len(keys)) + "|"]
    for row in table:
        lines.append(f"| {row['scheme']} | " + " | ".join(f"{1e3 * row['phaseSeconds'].get(key, 0):.1f}" for key in keys) + " |")
    return "\n".join(lines)


def draw(place, runs, output):
    figure, (panel,) = pictures.panels(1, width=8.0)
    ends = []
    for index, (scheme, of) in enumerate(runs.items()):
        colour, marker = (of_all[index % len(of_all)] for of_all in (pictures.PALETTE, pictures.MARKERS))
        # Point by point over seeds: the same steps, at the mean of their seconds.
        points = [tuple(zip(*each)) for each in zip(*(curve for _, curve in of.values()))]
        x = [statistics.mean(seconds) for seconds, _ in points]
        panel.plot(x, [statistics.mean(losses) for _, losses in points], color=colour, marker=marker, markersize=4, label=scheme)
        if len(of) > 1:
            panel.fill_between(x, [min(l) for _, l in points], [max(l) for _, l in points], color=colour, alpha=0.2, linewidth=0)
        ends.append((min(min(l) for _, l in points), max(points[len(points) // 8][1])))
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    panel.set_xlim(left=0)
    panel.set_xlabel("seconds of training")
    panel.set_ylabel("held-out loss (bits per byte)")
    panel.legend(title="band: all seeds" if len(runs["off"]) > 1 else None)
    figure.suptitle(f"Loss against time: {place}")
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", action="store_true", help="train on this host (default if no other place is given)")
    parser.add_argument("--emulate", action="append", default=[], metavar="RATE", help="train on emulated hosts with links of RATE, such as 1gbit; repeatable")
    parser.add_argument("--simulate", action="append", default=[], type=float, metavar="MB/s", help="train over simulated links; repeatable")
    parser.add_argument("--latency", type=int, default=0, metavar="µs", help="of simulated links (default 0)")
    parser.add_argument("--ranks", type=int, default=4, help="ranks, one for each emulated host (default 4)")
    parser.add_argument("--seeds", type=int, default=3, help="number of paired seeds (default 3)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--eval-every", type=int, help="steps between points of the curve (default: a thirtieth of the steps)")
    parser.add_argument("--scheme", action="append", choices=SCHEMES, help="train these beside off, plain and bf16-copies; repeatable (default: all)")
    parser.add_argument("--model", default=training_study.FINE_GRAINED, help="options of moe-lm train, the same for every run")
    parser.add_argument("--data", type=pathlib.Path, help="text to train on (default: the King James Bible)")
    parser.add_argument("--binary", default=ROOT / ".build" / "release" / "moe-lm", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results" / "time-to-loss", help="results folder")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.seeds < 1:
        parser.error("--steps and --seeds: at least 1")
    arguments.eval_every = arguments.eval_every or max(1, arguments.steps // 30)
    wanted = {"off", *AGAINST, *arguments.scheme} if arguments.scheme else set(SCHEMES)
    pictures.enter()
    if not arguments.binary.exists():
        sys.exit(f"{arguments.binary} is missing: run `swift build -c release` first")

    record, tables = {"steps": arguments.steps, "model": arguments.model, "places": {}}, []
    for place, launcher, link in places(arguments):
        runs = {scheme: {} for scheme in SCHEMES if scheme in wanted}
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for scheme in runs:
                runs[scheme][seed] = train(arguments.out / place, launcher, link, scheme, seed, arguments)
        record["places"][place] = rows(runs)
        tables.append(markdown(place, record["places"][place]))
        print(tables[-1], flush=True)
        draw(place, runs, arguments.out / f"{place}.svg")
    (arguments.out / "time.json").write_text(json.dumps(record, indent=2) + "\n")
    (arguments.out / "time.md").write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
