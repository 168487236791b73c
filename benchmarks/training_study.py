#!/usr/bin/env python3
"""Does the loss hold while the bytes fall? Trains moe-lm uncompressed and through each scheme, paired by seed and data
order, and reports the mean difference in held-out bits per byte with its 95 % interval.

  benchmarks/training_study.py                          # the whole table: 5 seeds, 4 ranks (half an hour on 2 cores)
  benchmarks/training_study.py --seeds 2 --steps 200    # a quick look
  benchmarks/training_study.py --scheme 'bf16=--wire bf16' --scheme 'lsh=--compression lsh --wire bf16'

Runs that are already in the results folder are not repeated: an interrupted study goes on where it stopped.
Writes study.json, study.md (the table) and study.svg (both loss curves against steps and against bytes).
Needs: a release build (launch/setup, swift build -c release), python3; matplotlib for the picture.
"""
import argparse
import json
import math
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASELINE = ("off", "--compression off --wire fp32")
DEFAULT_SCHEMES = [
    ("lsh-moe", "--compression lsh-moe --compensation identity --wire bf16"),
    ("crosspoint", "--compression lsh:rate=0.145,refinements=2 --compensation lowrank:16 --wire bf16"),
    ("codes", "--wire rotated:4"),
]
MODEL = "--width 64 --expert-width 256 --heads 2"


def student_quantile(degrees):
    """The two-sided 95 % quantile of Student's t, by bisection on its distribution function."""
    def density(x):
        log = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
        return math.exp(log - (degrees + 1) / 2 * math.log1p(x * x / degrees))

    def mass(limit, steps=4000):
        width = limit / steps
        inner = sum((4 if i % 2 else 2) * density(i * width) for i in range(1, steps))
        return width / 3 * (density(0) + inner + density(limit))

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < 0.475 else (low, middle)
    return low


def interval(values):
    """Mean and half-width of the 95 % interval of the mean."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, float("nan")
    return mean, student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def train(folder, name, scheme, seed, arguments):
    """One run, or its summary if it is already there."""
    summary = folder / f"{name}-seed{seed}.summary.json"
    metrics = folder / f"{name}-seed{seed}.metrics.jsonl"
    if not summary.exists():
        metrics.unlink(missing_ok=True)
        command = [
            str(ROOT / "launch" / "mpirun"), "-n", str(arguments.ranks), str(arguments.binary), "train",
            "--steps", str(arguments.steps), "--seed", str(seed), "--metrics", str(metrics), "--summary", str(summary),
            *shlex.split(arguments.model), *shlex.split(scheme),
        ]
        if arguments.data:
            command += ["--data", arguments.data]
        started = time.monotonic()
        print(f"{name} seed {seed}: {shlex.join(command[3:])}", flush=True)
        log = folder / f"{name}-seed{seed}.log"
        with open(log, "w") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
        if code != 0 or not summary.exists():
            sys.exit(f"{name} seed {seed} failed with exit code {code}; see {log}")
        print(f"  {json.loads(summary.read_text())['valBitsPerByte']:.4f} bits per byte, "
              f"{time.monotonic() - started:.0f} s", flush=True)
    result = json.loads(summary.read_text())
    if result["steps"] != arguments.steps:
        sys.exit(f"{summary} is of {result['steps']} steps, not {arguments.steps}: remove it or use --out")
    return result, metrics


def row(name, results, baseline):
    """One line of the table; differences are relative to the same seed's baseline."""
    relative = [100 * (results[s]["valBitsPerByte"] / baseline[s]["valBitsPerByte"] - 1) for s in results]
    mean, half = interval(relative)
    values = [r["valBitsPerByte"] for r in results.values()]
    last = list(results.values())
    return {
        "scheme": name,
        "seeds": len(values),
        "valBitsPerByte": statistics.mean(values),
        "spreadPercent": 100 * (max(values) - min(values)) / statistics.mean(values),
        "differencePercent": mean,
        "intervalPercent": [mean - half, mean + half],
        "rowsSentFraction": statistics.mean(r["rowsSentFractionLastQuarter"] for r in last),
        "wireFraction": statistics.mean(r["wireFractionLastQuarter"] for r in last),
        "stepSeconds": statistics.mean(r["stepSeconds"] for r in last),
    }


def markdown(rows):
    lines = ["| scheme | bits per byte | spread of seeds | difference | 95 % interval | rows sent | bytes / fp32 |",
             "|---|---|---|---|---|---|---|"]
    for r in rows:
        low, high = r["intervalPercent"]
        difference = "–" if r["scheme"] == BASELINE[0] else f"{r['differencePercent']:+.2f} %"
        bounds = "–" if r["scheme"] == BASELINE[0] else f"{low:+.2f} … {high:+.2f} %"
        lines.append(f"| {r['scheme']} | {r['valBitsPerByte']:.4f} | {r['spreadPercent']:.2f} % | {difference} | {bounds} "
                     f"| {100 * r['rowsSentFraction']:.1f} % | {100 * r['wireFraction']:.2f} % |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of paired seeds (default 5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--scheme", action="append", metavar="NAME=OPTIONS", help="a scheme to hold against off; repeatable")
    parser.add_argument("--model", default=MODEL, help=f"options of moe-lm train, the same for every run (default: {MODEL})")
    parser.add_argument("--data", help="text to train on (default: the King James Bible)")
    parser.add_argument("--binary", default=ROOT / ".build" / "release" / "moe-lm", type=pathlib.Path)
    parser.add_argument("--out", default=ROOT / "results" / "study", type=pathlib.Path)
    arguments = parser.parse_args()
    if not arguments.binary.exists():
        sys.exit(f"{arguments.binary} is missing: run `swift build -c release` first")
    arguments.out.mkdir(parents=True, exist_ok=True)
    schemes = [tuple(s.split("=", 1)) for s in arguments.scheme] if arguments.scheme else DEFAULT_SCHEMES
    schemes = [BASELINE] + schemes

    results = {name: {} for name, _ in schemes}
    curves = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name, options in schemes:
            results[name][seed], metrics = train(arguments.out, name, options, seed, arguments)
            curves.append(f"{name}={metrics}")
    rows = [row(name, results[name], results[BASELINE[0]]) for name, _ in schemes]
    (arguments.out / "study.json").write_text(json.dumps({"steps": arguments.steps, "ranks": arguments.ranks, "rows": rows},
                                                        indent=2) + "\n")
    (arguments.out / "study.md").write_text(markdown(rows) + "\n")
    print(markdown(rows))
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "plot_training.py"), "--output",
                    str(arguments.out / "study.svg"), *curves], check=True)


if __name__ == "__main__":
    main()
