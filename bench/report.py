"""What a run has found, as Markdown."""

import bars
import stats

#: Metrics for which more is better.
MORE_IS_BETTER = ("MiB/s", "files/s", "logins/s")

#: Metrics whose ratios would say nothing.
NO_RATIO = ("PSS KiB", "idle CPU %", "last slope/slope before")

GROUPS = (
    ("One stream", "transfer", lambda row: row.split()[-1] in ("gcm", "chacha20", "best")),
    ("4 and 16 streams", "streams", lambda row: row.endswith("streams")),
    ("1,000 files of 4 KiB", "small", lambda row: row.endswith("small files")),
    ("Login", "login", lambda row: row.startswith("login") and "side" not in row),
    ("Round trip of STAT", "stat", lambda row: row == "stat"),
    ("Many idle sessions", "sessions", lambda row: row.endswith(("session", "sessions"))),
    ("Round trip time on the client's side", "rtt-client", lambda row: row.endswith("client's side")),
    ("Round trip time on the upstream's side", "rtt-upstream", lambda row: row.endswith("upstream's side")),
)


def number(value):
    """Three digits that matter; nothing for None."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head, lines):
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(rows + ["| " + " | ".join(line) + " |" for line in lines])


def peers_of(results, rows):
    """Peers that have a sample in one of the rows, in the run's order."""
    return [peer for peer in results.facts["peers"] if any(peer in results.samples[row] for row in rows)]


def group_tables(results, rows):
    """Medians, then ratios to direct and to openssh."""
    peers, medians, ratios = peers_of(results, rows), [], []
    for row in rows:
        for metric in results.metrics(row):
            values = {peer: results.median(row, peer, metric) for peer in peers}
            medians.append([row, metric, *(number(values[peer]) for peer in peers)])
            for reference in ("direct", "openssh"):
                if metric not in NO_RATIO and values.get(reference):
                    shares = [number(stats.ratio(values[peer], values[reference])) for peer in peers]
                    ratios.append([row, metric, reference, *shares])
    return table(["row", "unit", *peers], medians) + "\n\nRatios:\n\n" + table(["row", "unit", "to", *peers], ratios)


def bars_table(results):
    lines, missing = [], 0
    for one in bars.TABLE:
        measured, passes = bars.judge(one, results.median)
        if measured is None:
            missing += 1
        else:
            verdict = "pass" if passes else "**fail**"
            lines.append([one["what"], one["row"], one["peer"], f"{one['rule']} {one['limit']:g}", number(measured), verdict])
    text = table(["bar", "row", "of", "wanted", "measured", ""], lines) if lines else ""
    return f"{text}\n\n{missing} of {len(bars.TABLE)} bars were not measured.".strip() if missing else text


def facts(results):
    lines = [[name, str(value)] for name, value in results.facts.items() if name != "peers" and not isinstance(value, dict)]
    lines += [[name, version] for name, version in results.facts.get("versions", {}).items()]
    return table(["", ""], lines)


def ciphers(results):
    lines = [[variant, peer, pair["client"], pair["upstream"]] for (peer, variant), pair in results.ciphers.items()]
    return table(["variant", "peer", "client's leg", "upstream's sshd"], sorted(lines, key=lambda line: line[0]))


def compared(results, old):
    """Every median that both runs have, and the change."""
    lines = []
    for row in results.rows():
        for metric in results.metrics(row):
            for peer in results.facts["peers"]:
                new, was = results.median(row, peer, metric), old.median(row, peer, metric)
                change = stats.ratio(new, was)
                if change is not None:
                    lines.append([row, metric, peer, number(was), number(new), f"{(change - 1) * 100:+.1f} %"])
    return table(["row", "unit", "peer", "before", "now", "change"], lines)


def markdown(results, plots, old=None):
    """The whole report. `plots` maps a group's name to the path of its picture, as the text should link to it."""
    parts = ["### The run", facts(results), "### Bars", bars_table(results)]
    for title, name, belongs in GROUPS:
        rows = [row for row in results.rows() if belongs(row)]
        if rows:
            parts += [f"### {title}", group_tables(results, rows)]
            if name in plots:
                parts.append(f"![{title}]({plots[name]})")
    if results.ciphers:
        parts += ["### Ciphers as negotiated", ciphers(results)]
    for title, left in (("Not to be had", results.unavailable), ("Failed", results.failures)):
        if left:
            # A reason may hold what a program said: no cell of a table, no line of its own.
            lines = [[peer, row, reason.replace("|", "/").replace("`", "'")] for peer, row, reason in left]
            parts += [f"### {title}", table(["peer", "row", "reason"], lines)]
    if old:
        parts += [f"### Compared with the run of {old.facts.get('date')}", compared(results, old)]
    return "\n\n".join(parts) + "\n"
