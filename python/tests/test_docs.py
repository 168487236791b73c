"""Whatever Python docs/python.md shows runs, and prints what the page says."""

import contextlib
import importlib.util
import io
import pathlib
import re

page = (pathlib.Path(__file__).resolve().parents[2] / "docs/python.md").read_text()


def test_the_page_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        if "import torch" in block and not importlib.util.find_spec("torch"):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, "docs/python.md", "exec"), names)
        shown = "".join(f"    {line}\n" for line in printed.getvalue().splitlines())
        assert shown in page, f"the page should show:\n{shown}"
