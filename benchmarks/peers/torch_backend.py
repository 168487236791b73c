#!/usr/bin/env python3
"""Times torch.distributed's all_to_all_single and all_reduce: the back end crosspoint beside Gloo.

  launch/mpirun -n 2 python benchmarks/peers/torch_backend.py
  launch/mpirun -n 4 python benchmarks/peers/torch_backend.py --json backend.json

Both run by turns in the same processes. Bytes: what a rank sends to each rank (all_to_all_single), or the array (all_reduce).
Columns: median over iterations of the slowest rank's time; ratio: median of the ratios by iteration, below 1 crosspoint is
faster. Results are compared bit for bit; sums are of small integers, which are exact in any order.
Needs: the Python package, mpi4py, PyTorch's CPU build.
"""
import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI

import crosspoint.distributed  # noqa: F401

world = MPI.COMM_WORLD


def seconds(call):
    """Of the slowest rank."""
    world.Barrier()
    start = time.perf_counter()
    call()
    return world.allreduce(time.perf_counter() - start, MPI.MAX)


def measure(operation, count, groups, iterations, warmup):
    x = torch.randint(0, 100, (count,)).float()
    y = {name: torch.empty_like(x) for name in groups}

    def call(name):
        if operation == "all_reduce":
            y[name].copy_(x)
            dist.all_reduce(y[name], group=groups[name])
        else:
            dist.all_to_all_single(y[name], x, group=groups[name])

    times = []
    for iteration in range(warmup + iterations):
        names = list(groups) if iteration % 2 else list(groups)[::-1]
        found = {name: seconds(lambda: call(name)) for name in names}
        if iteration >= warmup:
            times.append([found[name] for name in groups])
    ours, theirs = y.values()
    wrong = world.allreduce(int((ours != theirs).sum()))
    times = np.array(times)
    medians = np.median(times, axis=0) * 1e6
    return *medians.tolist(), float(np.median(times[:, 0] / times[:, 1])), wrong


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--largest", type=int, default=1 << 24, help="bytes")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("crosspoint", init_method="mpi://")
    groups = {name: dist.new_group(backend=name) for name in ("crosspoint", "gloo")}
    records, size = [], 1 << 10
    if world.rank == 0:
        print(f"# {world.size} ranks, {arguments.iterations} iterations by turns")
        print(f"{'':20}{'bytes':>10}{'crosspoint (µs)':>18}{'Gloo (µs)':>14}{'ratio':>9}{'wrong':>7}")
    while size <= arguments.largest:
        for operation in ("all_to_all_single", "all_reduce"):
            count = size // 4 * (world.size if operation == "all_to_all_single" else 1)
            ours, theirs, ratio, wrong = measure(operation, count, groups, arguments.iterations, arguments.warmup)
            records.append({"operation": operation, "bytes": size, "ratio": ratio, "wrong": wrong})
            if world.rank == 0:
                print(f"{operation:20}{size:10}{ours:18.1f}{theirs:14.1f}{ratio:9.3f}{wrong:7}", flush=True)
        size *= 8
    if arguments.json and world.rank == 0:
        with open(arguments.json, "w") as file:
            json.dump({"ranks": world.size, "records": records}, file)
    dist.destroy_process_group()
    if any(record["wrong"] for record in records):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
