"""Ranks of MPI, launched by mpirun."""

import os
import signal
import time

import pytest

mpi4py = pytest.importorskip("mpi4py")


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_communicator_of_mpi4py_is_taken(launch, ranks):
    code, output, errors = launch(ranks, "communicator").wait()
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(ranks)], errors
    assert errors == ""


def test_mpi_is_started_where_nobody_has(launch):
    code, output, errors = launch(2, "alone").wait()
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r} of 2: True" for r in range(2)], errors


def test_two_communicators_at_once_keep_apart(launch):
    code, output, errors = launch(4, "two_communicators").wait()
    assert code == 0 and sorted(output.split("\n")[:-1]) == [f"rank {r}: True" for r in range(4)], errors


def test_an_exception_on_one_rank_ends_the_job_and_is_shown_once(launch):
    code, _, errors = launch(3, "raises").wait()
    assert code != 0 and errors.count("ValueError: the data are at an end") == 1
    assert errors.count("Traceback") == 1, errors


def test_a_program_may_end_by_exit(launch):
    assert launch(2, "exits").wait() == (0, "", "")


def test_ranks_go_on_after_an_error_that_all_have(launch):
    code, output, errors = launch(2, "agreed").wait()
    assert code == 0, errors
    assert sorted(output.split("\n")[:-1]) == [f"rank {r}: {t}" for r in range(2) for t in ("True", "tokens of rank 1")]


def test_a_silent_rank_is_named_at_the_deadline(launch):
    code, output, errors = launch(3, "waits", "1").wait()
    assert code != 0 and "DEADLINE_EXCEEDED 2" in output and errors.count("Traceback") == 1, errors


def test_a_killed_rank_ends_the_job(launch):
    job = launch(3, "waits", "60")
    os.kill(job.rank(2), signal.SIGKILL)
    code, _, _ = job.wait(30)
    assert code != 0


def test_ctrl_c_ends_a_rank_that_waits(launch):
    job = launch(2, "waits", "60")
    waiting = job.rank(0)
    time.sleep(0.5)
    start = time.monotonic()
    os.kill(waiting, signal.SIGINT)
    code, _, errors = job.wait(30)
    assert code != 0 and "KeyboardInterrupt" in errors and time.monotonic() - start < 20, errors


def test_what_is_no_communicator_is_refused(launch):
    code, output, errors = launch(1, "other_things").wait()
    assert code == 0, errors
    lines = output.splitlines()
    assert lines[0].startswith("TRANSPORT MPI is not running")
    assert lines[1].startswith("INVALID_ARGUMENT comm str; a communicator of mpi4py")
    assert lines[2].startswith("INVALID_ARGUMENT comm float; a communicator of mpi4py")
    assert lines[3] == "TRANSPORT MPI_Comm_f2c 1048576 is no communicator"
    assert lines[4].startswith("INVALID_ARGUMENT fortran_handle 1099511627776")
