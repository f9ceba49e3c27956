"""Bar charts of the medians, one SVG for each group of rows."""

import report


def draw(results, folder):
    """Writes the pictures into `folder`; returns {group: path}. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "sftpproxy"
    import matplotlib.pyplot as pyplot

    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for title, name, belongs in report.GROUPS:
        rows = [row for row in results.rows() if belongs(row)]
        metrics = list(dict.fromkeys(metric for row in rows for metric in results.metrics(row)))
        if not rows:
            continue
        figure, axes = pyplot.subplots(len(metrics), 1, figsize=(9, 2.6 * len(metrics)), squeeze=False)
        for axis, metric in zip(axes[:, 0], metrics):
            chart(axis, results, [row for row in rows if metric in results.metrics(row)], metric)
        figure.suptitle(title)
        figure.tight_layout()
        path = folder / f"{name}.svg"
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
        # The house's text files have no blanks at the end of a line.
        path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        drawn[name] = path
    return drawn


def chart(axis, results, rows, metric):
    """Peers side by side in each row."""
    peers = report.peers_of(results, rows)
    width = 0.8 / max(1, len(peers))
    for place, peer in enumerate(peers):
        points = [(at, results.median(row, peer, metric)) for at, row in enumerate(rows)]
        points = [(at + (place - (len(peers) - 1) / 2) * width, value) for at, value in points if value is not None]
        # A peer keeps its colour in all pictures.
        colour = f"C{results.facts['peers'].index(peer) % 10}"
        axis.bar([at for at, _ in points], [value for _, value in points], width, label=peer, color=colour)
    axis.set_xticks(range(len(rows)))
    axis.set_xticklabels(rows, fontsize=8)
    axis.set_ylabel(metric)
    better = "more" if metric in report.MORE_IS_BETTER else "less"
    axis.set_title(f"{better} is better", fontsize=8, loc="right")
    axis.legend(fontsize=7, ncols=max(1, len(peers) // 2))
