#!/usr/bin/env python3
"""What do formats and clusters do to a model that is already trained? Trains moe-lm once, uncompressed, and measures it on
held-out text through each setting of the exchange. Forward only, but without chance: one model, one text; differences of a
hundredth of a percent are real. (What a model makes of it in training: training_study.py.)

  benchmarks/evaluation_study.py                       # trains first (2 minutes on 2 cores), then seconds for each setting
  benchmarks/evaluation_study.py --checkpoint run.ckpt # a model of your own, trained by `moe-lm train --checkpoint`

Writes evaluation.json, evaluation.md (the tables) and evaluation.svg (loss against rows, of clusters, and against bytes, of
formats).
Needs: a release build (launch/setup, swift build -c release), python3; matplotlib for the picture.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys

import pictures
from plot_formats import draw_formats, signed
from training_study import FINE_GRAINED, FORMATS, ROOT, train

MORE_FORMATS = ["entropy:5", "entropy:3", "rotated:5"]
FUNCTIONS = [1, 2, 4, 6, 8, 12, 16]
# How clusters are formed and compensated, by name.
CLUSTERS = {
    f"{copies}, {compensation}": f"--copies {copies} --compensation {compensation}"
    for copies in ("rank", "expert") for compensation in ("none", "identity")
}


def mpirun(arguments, command):
    full = [ROOT / "launch" / "mpirun", "-n", str(arguments.ranks), arguments.binary, *command]
    done = subprocess.run(full, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, full))} failed:\n{done.stdout}{done.stderr}")


def measure(arguments, options):
    """Held-out bits per byte, and the shares of rows and bytes that were sent for them."""
    summary = arguments.out / "eval.summary.json"
    mpirun(arguments, ["eval", "--checkpoint", arguments.checkpoint, "--summary", summary, *shlex.split(options)])
    result = json.loads(summary.read_text())
    summary.unlink()
    print(f"  {result['valBitsPerByte']:.5f}  {options}", flush=True)
    return {"bitsPerByte": result["valBitsPerByte"], "rows": result["evaluatedRowsSentFraction"],
            "bytes": result["evaluatedWireFraction"]}


def study(arguments):
    exact = {copies: measure(arguments, f"--copies {copies}") for copies in ("rank", "expert")}
    formats = {
        name: {place: measure(arguments, f"--copies rank --wire{flag} {name}")
               for place, flag in (("dispatch", "-dispatch"), ("combine", "-combine"), ("both", ""))}
        for name in sorted([*FORMATS, *MORE_FORMATS], key=lambda name: (name.split(":")[0], name))
    }
    clusters = {
        name: {functions: measure(arguments, f"--compression lsh:functions={functions} {options}")
               for functions in FUNCTIONS}
        for name, options in CLUSTERS.items()
    }
    return {"exact": exact, "formats": formats, "clusters": clusters}


def loss(result, exact):
    """In percent."""
    return 100 * (result["bitsPerByte"] / exact["bitsPerByte"] - 1)


def tables(record):
    rank = record["exact"]["rank"]
    lines = ["| format | bytes / fp32 | dispatch | combine | both |", "|---|---|---|---|---|"]
    for name, places in record["formats"].items():
        losses = " | ".join(signed(loss(places[place], rank), 2) + " %" for place in ("dispatch", "combine", "both"))
        lines.append(f"| `{name}` | {100 * places['both']['bytes'] / rank['bytes']:.1f} % | {losses} |")
    lines += ["", "| functions | " + " | ".join(record["clusters"]) + " |", "|---" * (1 + len(record["clusters"])) + "|"]
    for functions in FUNCTIONS:
        cells = []
        for name, results in record["clusters"].items():
            exact = record["exact"][name.split(",")[0]]
            result = results[functions]
            cells.append(f"{signed(loss(result, exact), 2)} % at {100 * result['rows'] / exact['rows']:.0f} %")
        lines.append(f"| {functions} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(record, output):
    figure, (left, right) = pictures.panels(2)
    for index, (name, results) in enumerate(record["clusters"].items()):
        exact = record["exact"][name.split(",")[0]]
        points = [(100 * r["rows"] / exact["rows"], loss(r, exact)) for r in results.values()]
        left.plot(*zip(*points), pictures.MARKERS[index] + "-", color=pictures.PALETTE[index + 1], label=name)
    left.set_title("clusters of 1 to 16 functions")
    left.set_xlabel("rows sent / rows without clusters (%)")
    rank = record["exact"]["rank"]
    draw_formats(right, [(name, 100 * places["both"]["bytes"] / rank["bytes"], loss(places["both"], rank), None)
                         for name, places in record["formats"].items()])
    right.set_xticks([4, 5, 10, 20, 50], ["4", "5", "10", "20", "50"])
    right.set_title("wire formats of dispatch and combine")
    right.set_xlabel("bytes / fp32 (%)")
    for panel in (left, right):
        panel.set_yscale("symlog", linthresh=0.1)
        panel.set_ylim(bottom=-0.07)
        panel.set_yticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
        panel.set_ylabel("held-out loss against exact rows (%)")
        panel.minorticks_off()
        panel.axhline(0, color="black", linewidth=0.8)
        panel.legend()
    figure.suptitle("What the exchange does to a trained model (moe-lm, forward only)")
    pictures.save(figure, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, help="the model to measure; trained first if left out")
    parser.add_argument("--model", default=FINE_GRAINED, help="options of moe-lm train for the model that is trained")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--binary", default=ROOT / ".build" / "release" / "moe-lm", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results" / "evaluation", help="results folder")
    parser.set_defaults(simulated=False, data=None)
    arguments = parser.parse_args()
    pictures.enter()
    if not arguments.binary.exists():
        sys.exit(f"{arguments.binary} is missing: run `swift build -c release` first")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.checkpoint is None:
        arguments.checkpoint = arguments.out / f"seed{arguments.seed}.ckpt"
        train(arguments.out, "trained", f"--eval-every 0 --checkpoint {shlex.quote(str(arguments.checkpoint))}",
              arguments.seed, arguments)
    record = study(arguments)
    (arguments.out / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n")
    printed = tables(record)
    (arguments.out / "evaluation.md").write_text(printed + "\n")
    print(printed)
    draw(record, arguments.out / "evaluation.svg")


if __name__ == "__main__":
    main()
