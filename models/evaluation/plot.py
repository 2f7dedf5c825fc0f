"""The learning curve as a small SVG; needs matplotlib, which the extra `models` installs."""

from pathlib import Path


def plot_curve(log: list[dict[str, float]], path: Path) -> None:
    """Draw held-out accuracies and MLM losses against tokens; the same log gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    millions = [entry["tokens"] / 1e6 for entry in log]
    # Text as text keeps the file small, and the salt makes its element ids the same every time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bertport", "font.size": 9}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        accuracy, loss = figure.subplots(1, 2)
        for name, label in (("heldout_nsp_accuracy", "next sentence"), ("heldout_mlm_top1", "masked word, top 1")):
            accuracy.plot(millions, [100 * entry[name] for entry in log], label=label)
        accuracy.set(ylabel="held-out accuracy, %", ylim=(0, 100))
        for name, label in (("train_mlm_loss", "training"), ("heldout_mlm_loss", "held out")):
            loss.plot(millions, [entry[name] for entry in log], label=label)
        loss.set(ylabel="MLM loss, nats")
        for axes in (accuracy, loss):
            axes.set_xlabel("million tokens")
            axes.grid(visible=True, alpha=0.3)
            axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
