"""The benchmarks that come with the package run."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

root = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_overhead_measures_every_call_from_c_and_python(tmp_path):
    record = tmp_path / "overhead.json"
    command = [sys.executable, root / "benchmarks/overhead.py", "--steps", "20", "--json", record]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(record.read_text())
    assert set(found["calls"]) == {"C", "numpy"} and {"C"} <= set(found["passes"])
    assert all(len(times) == 5 and min(times) > 0 for times in found["calls"].values())
    assert all(len(times) == 2 and min(times) > 0 for times in found["passes"].values())
    assert all(name in outcome.stdout for name in [*found["calls"], *found["passes"]])


def test_a_language_model_of_torch_learns_over_crosspoint_what_it_learns_over_gloo(tmp_path):
    pytest.importorskip("torch")
    text, record = tmp_path / "text", tmp_path / "lm.json"
    text.write_bytes(b"In the beginning was the word. " * 200)
    command = [root / "launch/mpirun", "-n", "2", sys.executable, root / "benchmarks/peers/torch_lm.py", "--data", text]
    command += ["--steps", "12", "--width", "32", "--length", "32", "--json", record]
    outcome = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    ours, theirs = zip(*json.loads(record.read_text())["losses"])
    assert ours == pytest.approx(theirs, rel=1e-3) and ours[-1] < 0.9 * ours[0]
