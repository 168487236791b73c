"""What all pictures share: the Python that draws them, the palette, the axes, and how a picture is written.

Call `enter()` before anything that takes time: whatever is missing is said then, and not after an hour of training.
"""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Okabe and Ito: told apart by everybody, also in grey.
PALETTE = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = "osD^vPX"


def enter():
    """Returns where this Python draws; else goes on under one that does, or ends with what to install. Which one is
    for launch/setup to say: the same rule as its --check."""
    try:
        import matplotlib  # noqa: F401
        return
    except ImportError:
        pass
    found = subprocess.run([ROOT / "launch" / "setup", "--python"], capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit(found.stderr.strip())
    python = found.stdout.strip()
    os.execv(python, [python, *sys.argv])


def panels(count, width=12.0, height=5.0, **options):
    """A figure with so many panels in a row."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({
        # Text stays text: no font travels within the picture.
        "svg.fonttype": "none", "svg.hashsalt": "crosspoint", "path.simplify_threshold": 0.5,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
        "axes.titlesize": 11, "figure.titlesize": 13, "legend.fontsize": 9, "legend.title_fontsize": 8,
    })
    figure, axes = pyplot.subplots(1, count, figsize=(width, height), squeeze=False, constrained_layout=True, **options)
    return figure, axes[0]


def save(figure, output):
    """Writes what the suffix of `output` says (.svg, .png, .pdf), the same bytes for the same picture."""
    output = pathlib.Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150, metadata={"Date": None} if output.suffix == ".svg" else None)
    print(f"wrote {output}")
