"""What tests share: a layer with an oracle, and launches under mpirun."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

root = pathlib.Path(__file__).resolve().parents[2]
# One device for each simulated rank of JAX, which reads it when it starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")


class Problem:
    """One rank's tokens and routing; every rank can make those of all."""

    def __init__(self, rank, tokens, hidden=16, experts=6, top_k=2, seed=0):
        random = np.random.default_rng([seed, rank])
        self.x = random.standard_normal((tokens, hidden), np.float32)
        self.dy = random.standard_normal((tokens, hidden), np.float32)
        order = random.random((tokens, experts)).argsort(axis=1)
        self.experts = order[:, :top_k].astype(np.int32)
        self.experts[random.random((tokens, top_k)) < 0.1] = -1
        self.weights = random.random((tokens, top_k), np.float32)

    def oracle(self):
        """Expert e multiplies by e + 1."""
        scale = np.where(self.experts >= 0, self.weights * (self.experts + 1), 0).sum(axis=1, keepdims=True)
        square = (self.x * self.dy).sum(axis=1, keepdims=True)
        return scale * self.x, scale * self.dy, np.where(self.experts >= 0, (self.experts + 1) * square, 0)


def scale(exchange, handle, rows):
    """What the experts do, to rows or to their gradients."""
    factors = np.repeat(np.array(exchange.local_experts, np.float32) + 1, handle.rows_per_expert)
    return rows * factors[:, None]


def step(exchange, problem, labels=None):
    """Forward and backward; the result, and the gradients by tokens and weights."""
    handle = exchange.dispatch(problem.x, problem.experts, problem.weights, labels)
    y = exchange.combine(handle, scale(exchange, handle, handle.rows))
    gradients = exchange.combine_backward(handle, problem.dy)
    dx = exchange.dispatch_backward(handle, scale(exchange, handle, gradients))
    return y, dx, handle.weight_gradients()


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


class Launch:
    """Ranks under mpirun, each a Python that runs a scenario of rank_program.py; none is left behind."""

    def __init__(self, ranks, scenario, *arguments, python=()):
        self.process = subprocess.Popen(
            [root / "launch/mpirun", "-n", str(ranks), sys.executable, *python]
            + [root / "python/tests/rank_program.py", scenario, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def rank(self, number):
        """The process of a rank, once it says that it is ready."""
        for line in self.process.stdout:
            if line.startswith(f"ready {number} "):
                return int(line.split()[2])
        raise AssertionError(self.process.stderr.read())

    def wait(self, limit=60):
        try:
            output, errors = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGTERM)
            time.sleep(2)
            self.process.kill()
            raise
        return self.process.returncode, output, errors


@pytest.fixture
def launch():
    launches = []

    def start(*arguments, **named):
        launches.append(Launch(*arguments, **named))
        return launches[-1]

    yield start
    for started in launches:
        if started.process.poll() is None:
            started.process.terminate()
            try:
                started.process.wait(10)
            except subprocess.TimeoutExpired:
                started.process.kill()
