"""The curves: error of the expert's output against bytes."""
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import matplotlib.ticker

# One style a family; colours that are told apart by everybody (Okabe and Ito).
STYLES = {
    "entropy": ("#0072B2", "o", "entropy-coded"),
    "rotated": ("#D55E00", "s", "rotated, fixed length"),
    "plain": ("#666666", "^", "fp8, int8, int4, zipcache"),
    "clusters": ("#009E73", "D", "clusters"),
}


def draw(path, records, bounds, blocks, note):
    figure, axes = plt.subplots(1, len(blocks), figsize=(4.2 * len(blocks), 4.2), sharey=True, squeeze=False)
    for axis, block in zip(axes[0], blocks):
        axis.plot(*zip(*bounds[block]), color="black", linewidth=1, label="reverse water-filling")
        for family, (colour, marker, label) in STYLES.items():
            points = sorted((r["bytes"], r["error"]) for r in records if r["block"] == block and r["family"] == family)
            if points:
                line = "solid" if family in ("entropy", "rotated") else "none"
                axis.plot(*zip(*points), linestyle=line, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axis.set_xlabel("bytes / bf16")
        axis.set_title(f"block {block}")
        axis.grid(True, which="both", linewidth=0.3)
    axes[0][0].set_ylabel("relative error of the FFN's output")
    axes[0][-1].legend(fontsize=8)
    figure.text(0.01, 0.005, note, fontsize=7, color="#444444")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, metadata={"Date": None})
