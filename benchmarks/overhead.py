#!/usr/bin/env python3
"""Times what Python adds to a call: the transfers of one rank with one token, from C, numpy, PyTorch and JAX.

  python benchmarks/overhead.py
  python benchmarks/overhead.py --steps 20000 --json overhead.json

Nothing has to be moved, so what is left is the calls themselves. overhead.c is compiled (cc) against the library of the
package. Columns: median µs of each call; `step`: their sum; `more than C`: the most that any call takes over that in C, and
the mean over calls.

The second table has dispatch and combine, and both with their backward passes: in PyTorch through autograd, in JAX as a jitted
program, and as one of 16 more layers in such a program. `nothing` is what the framework takes for as many functions, or for a
program, that do nothing. Either is left out where it is not installed.
"""
import argparse
import functools
import importlib.util
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np

from crosspoint import Exchange, simulate
from crosspoint._library import path as library_path

root = pathlib.Path(__file__).resolve().parents[1]
HIDDEN = 8
MORE = 16  # layers
CALLS = ("dispatch", "combine", "combine_backward", "dispatch_backward", "end")


def medians(step, steps):
    """In µs, of the durations that a step gives."""
    for _ in range(min(100, steps)):
        step()
    return (np.median([step() for _ in range(steps)], axis=0) * 1e6).tolist()


def in_c(steps):
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "overhead"
        flags = ["-O2", "-I", root / "Sources/CCrosspoint", f"-Wl,-rpath,{library_path.parent}"]
        subprocess.run(["cc", root / "benchmarks/overhead.c", *flags, library_path, "-o", program], check=True)
        output = subprocess.run([program, str(steps)], check=True, capture_output=True, text=True).stdout
    return [float(word) for word in output.split()]


def in_numpy(fabric, steps):
    exchange = Exchange(fabric, experts=1, hidden=HIDDEN)
    x, y = np.ones((1, HIDDEN), np.float32), np.empty((1, HIDDEN), np.float32)
    experts, weights = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)

    def step():
        times = [time.perf_counter()]
        handle = exchange.dispatch(x, experts, weights)
        rows = handle.rows
        times.append(time.perf_counter())
        exchange.combine(handle, rows, out=y)
        times.append(time.perf_counter())
        gradients = exchange.combine_backward(handle, x)
        times.append(time.perf_counter())
        exchange.dispatch_backward(handle, gradients, out=y)
        times.append(time.perf_counter())
        handle.weight_gradients()
        del handle, rows, gradients
        times.append(time.perf_counter())
        return np.diff(times)

    return medians(step, steps)


def passes_of_torch(fabric, steps):
    import torch

    from crosspoint.torch import combine, dispatch

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *values):
            return torch.from_numpy(values[0].detach().numpy())

        @staticmethod
        def backward(ctx, gradient):
            return gradient, gradient[:, :1], None

    torch.set_num_threads(1)
    exchange = Exchange(fabric, experts=1, hidden=HIDDEN)
    x, weights = torch.ones(1, HIDDEN, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    experts, dy = torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, HIDDEN)

    def ours():
        dispatched = dispatch(exchange, x, experts, weights)
        return combine(dispatched, dispatched.rows)

    def step(layer):
        start = time.perf_counter()
        y = layer()
        forward = time.perf_counter() - start
        y.backward(dy)
        return forward, time.perf_counter() - start

    empty = medians(lambda: step(lambda: Nothing.apply(Nothing.apply(x, weights, experts), weights, experts)), steps)
    return {"torch, nothing": empty, "torch": medians(lambda: step(ours), steps)}


def passes_of_jax(fabric, steps):
    import jax
    import jax.numpy as jnp

    from crosspoint.jax import ep_combine, ep_dispatch

    exchange = Exchange(fabric, experts=1, hidden=HIDDEN)
    x, experts, weights = jnp.ones((1, HIDDEN)), jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1))

    def layers(count, x, weights):
        for _ in range(count):
            rows, in_use, memory, counts = ep_dispatch(exchange, experts, x, weights, 1)
            x = ep_combine(exchange, memory, counts, rows, in_use, 1)
        return x * weights

    def step(forward, both):
        times = [time.perf_counter()]
        for function in (forward, both):
            jax.block_until_ready(function(x, weights))
            times.append(time.perf_counter())
        return np.diff(times)

    def measured(count):
        program = functools.partial(layers, count)
        gradients = jax.grad(lambda x, weights: program(x, weights).sum(), argnums=(0, 1))
        return medians(functools.partial(step, jax.jit(program), jax.jit(gradients)), steps)

    nothing, one, many = (measured(count) for count in (0, 1, 1 + MORE))
    return {"jax, nothing": nothing, "jax": one, "jax, next layer": [(b - a) / MORE for a, b in zip(one, many)]}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    c = in_c(arguments.steps)
    found = {"C": c, "numpy": simulate(1, lambda fabric: in_numpy(fabric, arguments.steps))[0]}
    print(f"{'µs':8}" + "".join(f"{call:>19}" for call in CALLS) + f"{'step':>10}{'more than C':>22}")
    for name, times in found.items():
        more = [a - b for a, b in zip(times, c)]
        cells = "".join(f"{value:19.2f}" for value in times) + f"{sum(times):10.2f}"
        print(f"{name:8}{cells}{f'{max(more):.2f} / {np.mean(more):.2f}':>22}")
    passes = {"C": [c[0] + c[1], sum(c)]}
    for name, measure, steps in (
        ("torch", passes_of_torch, arguments.steps),
        ("jax", passes_of_jax, arguments.steps // 5),
    ):
        if importlib.util.find_spec(name):
            passes |= simulate(1, lambda fabric: measure(fabric, max(1, steps)))[0]
    print(f"\n{'µs':16}{'forward':>12}{'and backward':>16}{'more than C, per transfer':>28}")
    for name, times in passes.items():
        more = (times[1] - passes["C"][1]) / 4
        print(f"{name:16}{times[0]:12.2f}{times[1]:16.2f}{more:28.2f}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"calls": found, "passes": passes, "steps": arguments.steps}))


if __name__ == "__main__":
    main()
