"""How jobs end that use a binding: by an exception on one rank, by a rank that is killed."""

import os
import signal

import pytest

BINDINGS = {"torch": "torch", "deepep": "torch", "torchtitan": "torch", "jax": "jax"}


@pytest.fixture(params=BINDINGS)
def binding(request):
    pytest.importorskip(BINDINGS[request.param])
    return request.param


def test_an_exception_on_one_rank_ends_the_job_and_is_shown(launch, binding):
    code, _, errors = launch(2, "raises_in", binding).wait()
    assert code != 0 and errors.count("ValueError: the data are at an end") == 1, errors


def test_a_killed_rank_ends_the_job(launch, binding):
    job = launch(2, "waits_in", binding)
    os.kill(job.rank(1), signal.SIGKILL)
    assert job.wait(30)[0] != 0
