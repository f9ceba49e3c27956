"""Where samples go, and how they are kept in a file."""

import json

import stats


class Results:
    """Samples by row, peer and metric. A row is a name such as "get gcm", a metric one of METRICS."""

    def __init__(self):
        self.samples = {}
        #: (peer, row, reason) of what could not be measured; `unavailable` = by its nature, not by a fault.
        self.failures = []
        self.unavailable = []
        #: (peer, variant) to {"client": …, "upstream": …}, as negotiated.
        self.ciphers = {}
        self.facts = {}

    def add(self, row, peer, metric, value):
        self.samples.setdefault(row, {}).setdefault(peer, {}).setdefault(metric, []).append(value)

    def all(self, row, peer, metric):
        return self.samples.get(row, {}).get(peer, {}).get(metric, [])

    def median(self, row, peer, metric):
        return stats.median(self.all(row, peer, metric))

    def rows(self):
        """In the order in which they were measured, but for the one that sums up."""
        return sorted(self.samples, key=lambda row: row == "sessions")

    def metrics(self, row):
        """Metrics of a row in the order of their first sample."""
        return list(dict.fromkeys(metric for peer in self.samples.get(row, {}).values() for metric in peer))

    def save(self, path):
        ciphers = [{"peer": peer, "variant": variant, **pair} for (peer, variant), pair in self.ciphers.items()]
        whole = {"facts": self.facts, "samples": self.samples, "ciphers": ciphers}
        whole |= {"failures": self.failures, "unavailable": self.unavailable}
        path.write_text(json.dumps(whole, indent=1) + "\n")

    @classmethod
    def load(cls, path):
        whole = json.loads(path.read_text())
        results = cls()
        results.facts, results.samples = whole["facts"], whole["samples"]
        results.failures, results.unavailable = whole["failures"], whole["unavailable"]
        results.ciphers = {(c["peer"], c["variant"]): {k: c[k] for k in ("client", "upstream")} for c in whole["ciphers"]}
        return results
