"""The curves: error of the expert's output against bytes."""
import pictures

# One style a family.
STYLES = {
    "entropy": (pictures.PALETTE[1], "o", "entropy-coded"),
    "rotated": (pictures.PALETTE[2], "s", "rotated, fixed length"),
    "plain": (pictures.PALETTE[4], "^", "fp8, int8, int4, zipcache"),
    "clusters": (pictures.PALETTE[3], "D", "clusters"),
}


def draw(path, records, bounds, blocks, note):
    from matplotlib import ticker

    figure, axes = pictures.panels(len(blocks), 4.2 * len(blocks), 4.2, sharey=True)
    for axis, block in zip(axes, blocks):
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
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.set_xlabel("bytes / bf16")
        axis.set_title(f"block {block}")
    axes[0].set_ylabel("relative error of the FFN's output")
    axes[-1].legend()
    figure.supxlabel(note, fontsize=8, color="#444444")
    pictures.save(figure, path)
