"""Whatever Python the pages for it show runs, and prints what the page says."""

import contextlib
import importlib.util
import io
import pathlib
import re

import pytest

docs = pathlib.Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name, count, needs", [("python", 5, None), ("torch", 2, "torch"), ("jax", 1, "jax")])
def test_a_page_prints_what_it_says(name, count, needs):
    if needs and not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is not installed")
    page = (docs / f"{name}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == count
    names = {}
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, f"docs/{name}.md", "exec"), names)
        shown = "".join(f"    {line}\n" for line in printed.getvalue().splitlines())
        assert shown in page, f"the page should show:\n{shown}"
