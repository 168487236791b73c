#!/usr/bin/env python3
"""Does memory come to rest? Trains moe-lm over MPI with routing that changes, looks at every rank's resident memory, and
prints after which step none of them grew any more.

  benchmarks/resident_memory.py                                  # off, crosspoint and a byte budget, 2000 steps each
  benchmarks/resident_memory.py --scheme 'bf16=--wire bf16' --steps 300

A rank grows where it holds 64 KiB more than ever before. Needs: a release build, Linux.
"""
import argparse
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

import training_study

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ("--context 32 --width 64 --heads 2 --blocks 4 --experts 64 --top-k 16 --expert-width 32 --shared-experts 4 "
         "--batch 16 --eval-every 0 --eval-windows 8")
SCHEMES = {"off": "--compression off --wire fp32",
           "crosspoint": dict(training_study.STUDIES["copies"]["schemes"])["crosspoint"],
           "budget": "--budget-bytes 0.3"}
NOTICED = 64


def resident(binary):
    """KiB of every process of the program, by process."""
    found = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if (status.parent / "exe").resolve() == binary:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
                found[status.parent.name] = int(fields["VmRSS"].split()[0])
        except (OSError, KeyError):
            continue
    return found


def run(binary, options, ranks, steps):
    """The last step at which a rank grew, and the MiB that each holds at the end."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "metrics.jsonl"
        job = subprocess.Popen(
            [ROOT / "launch/mpirun", "-n", str(ranks), binary, "train", *shlex.split(MODEL), *shlex.split(options),
             "--steps", str(steps), "--metrics", metrics], stdout=subprocess.DEVNULL)
        most, last, step = {}, 0, 0
        while job.poll() is None:
            step = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            for rank, size in resident(binary).items() if 0 < step < steps else ():
                if size > most.get(rank, 0) + NOTICED:
                    most[rank], last = size, step
            time.sleep(0.05)
        if job.returncode:
            sys.exit(f"moe-lm ended with {job.returncode}")
    return last, sorted(size // 1024 for size in most.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--scheme", action="append", metavar="NAME=OPTIONS", help="instead of the three; repeatable")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/moe-lm")
    arguments = parser.parse_args()
    schemes = dict(text.split("=", 1) for text in arguments.scheme) if arguments.scheme else SCHEMES
    print("| scheme | last step at which a rank grew | MiB of each rank |\n|---|---|---|")
    for name, options in schemes.items():
        last, sizes = run(arguments.binary.resolve(), options, arguments.ranks, arguments.steps)
        print(f"| {name} | {last} of {arguments.steps} | {', '.join(map(str, sizes))} |", flush=True)


if __name__ == "__main__":
    main()
