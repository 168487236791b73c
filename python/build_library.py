"""What `pip install .` does beside copying Python: builds the shared library with Swift, for the wheel to carry."""

import pathlib
import re
import shutil
import subprocess
import tempfile

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

root = pathlib.Path(__file__).resolve().parent.parent
version = re.search(
    r'crosspointVersion = "(.*)"', (root / "Sources/CrosspointCore/Version.swift").read_text()
).group(1)


class BuildLibrary(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            target = root / "python/crosspoint/lib"
        else:
            target = pathlib.Path(self.build_lib) / "crosspoint/lib"
        with tempfile.TemporaryDirectory() as prefix:
            subprocess.run(
                [root / "launch/install", "--library", "--prefix", prefix], check=True
            )
            target.mkdir(parents=True, exist_ok=True)
            # Under the name that it has for the linker.
            library = (pathlib.Path(prefix) / "lib/libcrosspoint.so").resolve()
            shutil.copy(library, target / library.name)


class PlatformWheel(bdist_wheel):
    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        # Nothing in it depends on the version of Python.
        return ("py3", "none", super().get_tag()[2])
