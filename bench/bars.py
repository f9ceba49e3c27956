"""The bars of issue 3 and the last one of issue 4, one table, and whether the medians of a run pass them."""

import stats

SSH2, LIBSSH, REUSE = "sftpproxy", "sftpproxy-libssh", "sftpproxy-reuse"
#: The same relay looking at nothing and at everything.
PLAIN, AUDIT = "sftpproxy-plain", "sftpproxy-audit"


def bar(what, row, metric, peer, rule, limit):
    return {"what": what, "row": row, "metric": metric, "peer": peer, "rule": rule, "limit": limit}


def _table():
    table = []
    for row in ("get", "put"):
        table.append(bar("CPU s/GiB", f"{row} gcm", "CPU s/GiB", LIBSSH, "at most × openssh", 0.85))
        for variant in ("chacha20", "best"):
            table.append(bar("CPU s/GiB", f"{row} {variant}", "CPU s/GiB", LIBSSH, "at most × openssh", 0.85))
            table.append(bar("CPU s/GiB", f"{row} {variant}", "CPU s/GiB", SSH2, "at most × openssh", 1.3))
        for variant in ("gcm", "chacha20", "best"):
            table.append(bar("one stream", f"{row} {variant}", "MiB/s", LIBSSH, "at least × openssh", 1.2))
            table.append(bar("one stream", f"{row} {variant}", "MiB/s", LIBSSH, "at least × direct", 0.65))
            table.append(bar("one stream", f"{row} {variant}", "MiB/s", SSH2, "at least × openssh", 0.8))
        table.append(bar("16 streams", f"{row} 16 streams", "MiB/s", LIBSSH, "at least × openssh", 1.4))
        for peer in (LIBSSH, SSH2):
            table.append(bar("small files", f"{row} small files", "files/s", peer, "at least × direct", 0.9))
    for row in ("", ", curve25519"):
        for peer, share, milliseconds in ((LIBSSH, 0.1, 12), (SSH2, 0.1, 12), (REUSE, 0.05, 6)):
            table.append(bar("login, time added", f"login{row}", "login ms", peer, "adds at most × openssh", share))
            table.append(bar("login, CPU", f"login{row}", "CPU ms/login", peer, "at most", milliseconds))
    for peer in (LIBSSH, SSH2):
        # With curve25519 everywhere there is no such bar: direct itself is then less than 5 × openssh.
        table.append(bar("logins/s", "logins", "logins/s", peer, "at least × openssh", 7))
        table.append(bar("STAT, p50 added", "stat", "p50 µs", peer, "adds at most × openssh", 0.6))
    for peer, kibibytes in ((LIBSSH, 119), (SSH2, 170)):
        table.append(bar("memory of an idle session", "sessions", "KiB/session", peer, "at most", kibibytes))
        # Flat: the slope from 200 to 1,000 sessions is not 10 % steeper than the one from 50 to 200.
        table.append(bar("memory, flat slope", "sessions", "last slope/slope before", peer, "at most", 1.1))
        table.append(bar("CPU of 1,000 idle sessions", "1000 sessions", "idle CPU %", peer, "at most", 0.5))
    for row in ("get gcm", "put gcm"):
        table.append(bar("audit and policy, CPU", row, "CPU s/GiB", AUDIT, f"at most × {PLAIN}", 1.03))
    table.append(bar("audit and policy, STAT", "stat", "µs over plain", AUDIT, "at most", 5))
    return table


TABLE = _table()


def judge(one, median):
    """(measured, passes) of a bar; both None when something it needs was not measured. `median(row, peer, metric)` gives figures."""
    row, metric, rule, limit = one["row"], one["metric"], one["rule"], one["limit"]
    value = median(row, one["peer"], metric)
    if rule.startswith("adds"):
        direct, other = median(row, "direct", metric), median(row, "openssh", metric)
        measured = stats.added(value, direct, other)
    elif "×" in rule:
        measured = stats.ratio(value, median(row, rule.split()[-1], metric))
    else:
        measured = value
    if measured is None:
        return None, None
    return measured, measured >= limit if "at least" in rule else measured <= limit
