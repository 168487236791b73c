#!/usr/bin/env python3
"""What bfloat16 rows gain: the four transfers with rows=bf16, beside float32 rows, and beside widening and narrowing.

  launch/mpirun -n 2 python benchmarks/bf16_rows.py
  launch/mpirun -n 4 python benchmarks/bf16_rows.py --tokens 256 --tokens 4096
  launch/emulate --hosts 4 --rate 1gbit -- python benchmarks/bf16_rows.py

The same tokens go to experts that change nothing, forward and backward, by turns:
  bf16      bfloat16 rows in memory, which travel as they are
  fp32      float32 rows, which travel as they are
  widened   bfloat16 rows in memory: PyTorch widens them, they travel as bfloat16, PyTorch narrows what comes back

Columns: median over iterations of the slowest rank's time, and the median of the ratios by iteration: below 1 bf16 is faster.
Needs: the Python package, mpi4py, PyTorch's CPU build.
"""
import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from mpi4py import MPI

from crosspoint import Exchange, Fabric

HIDDEN, EXPERTS, TOP_K = 1024, 16, 2
world = MPI.COMM_WORLD


def bits(tensor):
    return tensor.view(torch.uint16).numpy()


def step(exchange, x, experts, weights):
    handle = exchange.dispatch(x, experts, weights)
    y = exchange.combine(handle, handle.rows)
    return y, exchange.dispatch_backward(handle, exchange.combine_backward(handle, x))


def widened(exchange, x, experts, weights):
    """Every batch that goes in or comes out is one of bfloat16."""
    def narrow(rows):
        return torch.from_numpy(rows).bfloat16()

    handle = exchange.dispatch(x.float().numpy(), experts, weights)
    rows = narrow(handle.rows)
    y = narrow(exchange.combine(handle, rows.float().numpy()))
    gradients = narrow(exchange.combine_backward(handle, x.float().numpy()))
    return bits(y), bits(narrow(exchange.dispatch_backward(handle, gradients.float().numpy())))


def slowest(function):
    world.barrier()
    start = time.perf_counter()
    function()
    return world.allreduce(time.perf_counter() - start, MPI.MAX)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, action="append", help="per rank; repeatable (default 64, 1024 and 8192)")
    parser.add_argument("--iterations", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fabric = Fabric.of(world)
    exchanges = {
        name: Exchange(fabric, experts=EXPERTS, hidden=HIDDEN, options=options)
        for name, options in (("bf16", "rows=bf16"), ("fp32", ""), ("widened", "wire=bf16"))
    }
    if world.rank == 0:
        print(f"{world.size} ranks, top-{TOP_K} of {EXPERTS}, hidden {HIDDEN}\n")
        print("| tokens | bf16, ms | fp32, ms | widened, ms | bf16 ÷ fp32 | bf16 ÷ widened |\n|---|---|---|---|---|---|")
    for tokens in arguments.tokens or [64, 1024, 8192]:
        generator = np.random.default_rng([world.rank, tokens])
        x = torch.from_numpy(generator.standard_normal((tokens, HIDDEN), np.float32)).bfloat16()
        wide = x.float().numpy()
        experts = np.argsort(generator.random((tokens, EXPERTS)), axis=1)[:, :TOP_K].astype(np.int32)
        weights = np.full((tokens, TOP_K), 0.5, np.float32)
        sides = {
            "bf16": lambda: step(exchanges["bf16"], bits(x), experts, weights),
            "fp32": lambda: step(exchanges["fp32"], wide, experts, weights),
            "widened": lambda: widened(exchanges["widened"], x, experts, weights),
        }
        times = {name: [] for name in sides}
        for iteration in range(arguments.iterations + 5):
            for name in sorted(sides, reverse=iteration % 2 == 1):
                seconds = slowest(sides[name])
                if iteration >= 5:
                    times[name].append(seconds)
        if world.rank == 0:
            ms = {name: f"{1e3 * np.median(values):.2f}" for name, values in times.items()}
            ratios = [f"{np.median(np.divide(times['bf16'], times[peer])):.2f}" for peer in ("fp32", "widened")]
            print(f"| {tokens} | " + " | ".join([ms["bf16"], ms["fp32"], ms["widened"], *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
