#!/usr/bin/env python3
"""Does the loss hold while the bytes fall? Trains moe-lm uncompressed and through each scheme, paired by seed and data
order, and reports the mean difference in held-out bits per byte with its 95 % interval.

  benchmarks/training_study.py                          # many small experts: 5 seeds, 4 ranks (half an hour on 2 cores)
  benchmarks/training_study.py --seeds 2 --steps 200    # a quick look
  benchmarks/training_study.py --study compression      # few large experts: clusters and codes
  benchmarks/training_study.py --study memory           # many small experts: codes with a memory
  benchmarks/training_study.py --study memory-large     # few large experts: the same
  benchmarks/training_study.py --study policy           # few large experts: budgets and a hand-chosen scheme
  benchmarks/training_study.py --study stages           # deletion, pruning, and everything together
  benchmarks/training_study.py --study formats          # every format and direction, every compensation (2 hours)
  benchmarks/training_study.py --scheme 'bf16=--wire bf16' --scheme 'lsh=--compression lsh --wire bf16'

A study is a list of schemes, a scheme a name and options of moe-lm. Runs that are already in the results folder are not
repeated: an interrupted study goes on where it stopped. Writes study.json, study.md (the tables) and study.svg (loss against
steps and against bytes; of formats, what each costs against the bytes that it takes).
With --code the text is source code: this Python's standard library, its top-level modules in the order of their names.
With --simulated ranks are threads of one process, without MPI: the same bits.
Needs: a release build (launch/setup, swift build -c release), python3; matplotlib for the picture.
"""
import argparse
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import sysconfig
import time

import pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = "--width 64 --expert-width 256 --heads 2"
FINE_GRAINED = "--width 64 --heads 2 --experts 64 --top-k 16 --expert-width 32 --shared-experts 4"
# What leaves few rows of many small experts: weak choices pruned, few ranks a token, one copy for each.
FEW_ROWS = "--prune auto --prune-share 0.3 --router-groups 4 --groups-per-token 2.4 --copies rank"
CODES = "--wire rotated:4 --wire-gradient rotated:2"
BASELINE = ("off", "--compression off --wire fp32")
FORMATS = ["bf16", "fp16", "fp8", "int8", "int4", "zipcache:8", "zipcache:4", "mixed:2,6", "entropy:4", "entropy:2",
           *(f"rotated:{bits}" for bits in (8, 6, 4, 3, 2, 1))]
# What stands for the tokens where compensations are compared: near duplicates, the paper's six functions, a quarter of the rows.
CLUSTERS = {"near": "lsh:functions=8", "six": "lsh-moe", "quarter": "lsh:functions=2,rate=0.24,refinements=2"}
STUDIES = {
    "copies": {
        "model": FINE_GRAINED,
        "steps": 1000,
        "schemes": [
            # What a careful user sends today.
            ("bf16-copies", "--copies rank --wire bf16"),
            ("crosspoint", f"{FEW_ROWS} --wire rotated:6 --wire-gradient rotated:4"),
        ],
    },
    "compression": {
        "schemes": [
            ("lsh-moe", "--compression lsh-moe --compensation identity --wire bf16"),
            ("clusters", "--prune auto --prune-share 0.8 --compression lsh:functions=2,rate=0.24,refinements=4 "
                         "--compensation lowrank:16 --wire rotated:6 --wire-gradient rotated:3"),
            ("codes", CODES),
            ("near", "--compression lsh:functions=8 --compensation lowrank:16 --wire entropy:5 --wire-gradient rotated:3"),
        ],
    },
    # Entropy codes with a memory, at 1.5 % of the fp32 bytes.
    "memory": {
        "model": FINE_GRAINED,
        "schemes": [
            ("memory", f"{FEW_ROWS} --wire-dispatch entropy:2.95 --wire-combine entropy:3.25 --wire-gradient entropy:2 "
                       "--memory 64"),
        ],
    },
    # At 6 %; all rows, or half of the second choices pruned and a third more bits for the others.
    "memory-large": {
        "schemes": [
            ("memory", "--wire-dispatch weighted:1.87 --wire-combine weighted:2.63 --wire-gradient entropy:1.28 --memory 128"),
            ("pruned", "--prune auto --prune-share 0.5 --wire-dispatch weighted:2.55 --wire-combine weighted:3.55 "
                       "--wire-gradient entropy:1.72 --memory 128"),
        ],
    },
    # Chosen by hand and by a budget, at equal bytes.
    "policy": {
        "schemes": [("codes", CODES), ("bytes", "--budget-bytes 0.206"), ("error", "--budget-error 0.088")],
        "comparisons": [("bytes", "codes"), ("error", "codes")],
    },
    "stages": {
        "model": FINE_GRAINED,
        "steps": 1000,
        "schemes": [
            ("gate", "--deletion-rate 0.5 --deletion-warmup 200"),
            ("random", "--deletion-rate 0.5 --deletion random --deletion-warmup 200"),
            ("fixed", "--deletion-rate 0.5 --deletion fixed --deletion-warmup 200"),
            ("pruning", "--prune auto --prune-share 0.3"),
            ("together", "--deletion-rate 0.3 --deletion-warmup 200 --prune auto --prune-share 0.3 "
                         "--copies rank --router-groups 4 --groups-per-token 2.4 "
                         "--compression lsh:functions=8 --compensation none "
                         "--wire entropy:4.5 --wire-gradient rotated:3"),
        ],
        # Schemes held against each other beside off: how they differ, and how much of the second's loss the first saves.
        "comparisons": [("gate", "random"), ("gate", "fixed")],
    },
    # Every format in each direction, the other in fp32; gradients rounded without bias where a format can. Every
    # compensation, in fp32. Short runs: seeds differ more than settled ones.
    "formats": {
        "steps": 300,
        "schemes": [
            *((f"forward {name}", f"--wire {name} --wire-gradient fp32") for name in FORMATS),
            *((f"gradients {name}", f"--wire fp32 --wire-gradient {name}") for name in FORMATS),
            *((f"{clusters} {name}", f"--compression {options} --compensation {name}")
              for clusters, options in CLUSTERS.items() for name in ("none", "identity", "lowrank:16")),
        ],
        "picture": "plot_formats.py",
    },
}


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


def source_code(folder):
    """A text of another kind, of which every machine has one: the top-level modules of this Python's standard library."""
    text = folder / f"python-{platform.python_version()}.txt"
    modules = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text.write_bytes(b"".join(module.read_bytes() for module in modules))
    return str(text)


def train(folder, name, scheme, seed, arguments):
    """One run, or its summary if it is already there and of the same options."""
    summary = folder / f"{name}-seed{seed}.summary.json"
    metrics = folder / f"{name}-seed{seed}.metrics.jsonl"
    options = folder / f"{name}-seed{seed}.options"
    wanted = f"{arguments.steps} steps, {arguments.ranks} ranks, {arguments.model} {scheme} {arguments.data or ''}\n"
    if summary.exists():
        if json.loads(summary.read_text())["interrupted"]:
            summary.unlink()
        elif not options.exists() or options.read_text() != wanted:
            sys.exit(f"{summary} is of other options than {wanted.strip()!r}: remove it or use another --out")
    if not summary.exists():
        options.write_text(wanted)
        metrics.unlink(missing_ok=True)
        launcher = [] if arguments.simulated else [ROOT / "launch" / "mpirun", "-n", arguments.ranks]
        link = ["--ranks-simulated", arguments.ranks] if arguments.simulated else []
        command = [
            *map(str, launcher), str(arguments.binary), "train", *map(str, link), "--steps", str(arguments.steps),
            "--seed", str(seed), "--metrics", str(metrics), "--summary", str(summary),
            *shlex.split(arguments.model), *shlex.split(scheme),
        ]
        if arguments.data:
            command += ["--data", arguments.data]
        started = time.monotonic()
        print(f"{name} seed {seed}: {shlex.join(command[len(launcher):])}", flush=True)
        log = folder / f"{name}-seed{seed}.log"
        # A rank is one thread; launch/mpirun says so, too.
        environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
        with open(log, "w") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
        if code != 0 or not summary.exists():
            sys.exit(f"{name} seed {seed} failed with exit code {code}; see {log}")
        print(f"  {json.loads(summary.read_text())['valBitsPerByte']:.4f} bits per byte, "
              f"{time.monotonic() - started:.0f} s", flush=True)
    result = json.loads(summary.read_text())
    if result["interrupted"]:
        sys.exit(f"{name} seed {seed} was interrupted after {result['steps']} steps; run the study again")
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
        "stageShare": statistics.mean(r["stageSeconds"] / r["stepSeconds"] for r in last),
    }


def comparison(name, other, results):
    """How one scheme does against another that is not the baseline, paired by seed."""
    bits = {key: {seed: r["valBitsPerByte"] for seed, r in results[key].items()} for key in (name, other, BASELINE[0])}
    mean, half = interval([100 * (bits[name][s] / bits[other][s] - 1) for s in bits[name]])
    lost = [statistics.mean(bits[key].values()) - statistics.mean(bits[BASELINE[0]].values()) for key in (name, other)]
    return {
        "scheme": name,
        "against": other,
        "differencePercent": mean,
        "intervalPercent": [mean - half, mean + half],
        # Of what the other loses against the baseline; nothing to save where it loses nothing.
        "gapClosed": 1 - lost[0] / lost[1] if lost[1] > 0 else None,
    }


def comparison_markdown(comparisons):
    lines = ["| scheme | against | difference | 95 % interval | of the other's loss saved |", "|---|---|---|---|---|"]
    for c in comparisons:
        low, high = c["intervalPercent"]
        saved = "–" if c["gapClosed"] is None else f"{100 * c['gapClosed']:.0f} %"
        lines.append(f"| {c['scheme']} | {c['against']} | {c['differencePercent']:+.2f} % | {low:+.2f} … {high:+.2f} % | {saved} |")
    return "\n".join(lines)


def markdown(rows):
    lines = ["| scheme | bits per byte | spread of seeds | difference | 95 % interval | rows sent | bytes / fp32 | time in stages |",
             "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        low, high = r["intervalPercent"]
        difference = "–" if r["scheme"] == BASELINE[0] else f"{r['differencePercent']:+.2f} %"
        bounds = "–" if r["scheme"] == BASELINE[0] else f"{low:+.2f} … {high:+.2f} %"
        lines.append(f"| {r['scheme']} | {r['valBitsPerByte']:.4f} | {r['spreadPercent']:.2f} % | {difference} | {bounds} "
                     f"| {100 * r['rowsSentFraction']:.1f} % | {100 * r['wireFraction']:.2f} % | {100 * r['stageShare']:.1f} % |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of paired seeds (default 5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="optimiser steps of each run (default: the study's)")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--study", choices=sorted(STUDIES), default="copies")
    parser.add_argument("--scheme", action="append", metavar="NAME=OPTIONS",
                        help="a scheme to hold against off instead of the study's; repeatable")
    parser.add_argument("--model", help="options of moe-lm train, the same for every run (default: the study's model)")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--data", help="text to train on (default: the King James Bible)")
    text.add_argument("--code", action="store_true", help="train on source code")
    parser.add_argument("--simulated", action="store_true", help="ranks are threads of one process")
    parser.add_argument("--binary", default=ROOT / ".build" / "release" / "moe-lm", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="results folder (default: results/ and the study's name)")
    parser.add_argument("--options", metavar="SCHEME",
                        help="print the options of moe-lm that a scheme of the study (or off, or model) stands for, and end")
    arguments = parser.parse_args()
    if arguments.options:
        named = dict([BASELINE, ("model", STUDIES[arguments.study].get("model", MODEL)), *STUDIES[arguments.study]["schemes"]])
        if arguments.options not in named:
            parser.error(f"{arguments.options!r} is none of {', '.join(named)}")
        return print(named[arguments.options])
    pictures.enter()
    if not arguments.binary.exists():
        sys.exit(f"{arguments.binary} is missing: run `swift build -c release` first")
    name = "schemes" if arguments.scheme else arguments.study
    arguments.out = arguments.out or ROOT / "results" / (f"{name}-code" if arguments.code else name)
    study = STUDIES[arguments.study]
    arguments.model = arguments.model or study.get("model", MODEL)
    arguments.steps = arguments.steps or study.get("steps", 600)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.code:
        arguments.data = source_code(arguments.out)
    if arguments.scheme:
        study = {"schemes": [tuple(s.split("=", 1)) for s in arguments.scheme]}
    schemes = [BASELINE] + study["schemes"]

    results = {name: {} for name, _ in schemes}
    curves = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name, options in schemes:
            results[name][seed], metrics = train(arguments.out, name, options, seed, arguments)
            curves.append(f"{name}={metrics}")
    rows = [row(name, results[name], results[BASELINE[0]]) for name, _ in schemes]
    comparisons = [comparison(name, other, results) for name, other in study.get("comparisons", [])]
    record = {"steps": arguments.steps, "ranks": arguments.ranks, "rows": rows, "comparisons": comparisons}
    (arguments.out / "study.json").write_text(json.dumps(record, indent=2) + "\n")
    tables = markdown(rows) + ("\n\n" + comparison_markdown(comparisons) if comparisons else "")
    (arguments.out / "study.md").write_text(tables + "\n")
    print(tables)
    picture = study.get("picture", "plot_training.py")
    drawn = curves if picture == "plot_training.py" else [arguments.out / "study.json"]
    subprocess.run([sys.executable, ROOT / "benchmarks" / picture, "--output", arguments.out / "study.svg", *drawn], check=True)


if __name__ == "__main__":
    main()
