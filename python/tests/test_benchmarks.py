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
