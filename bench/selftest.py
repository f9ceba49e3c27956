"""What of the benchmark can be tested without a measurement: arithmetic, bars, the report, and whose CPU time is counted. Takes a second."""

import math
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import bars
import client
import main as entry
import peers
import procs
import report
import rows
import stats
from results import Results


def run_of(figures):
    """Results with one sample for each (row, peer, metric)."""
    results = Results()
    for (row, peer, metric), value in figures.items():
        results.add(row, peer, metric, value)
    results.facts = {"peers": list(dict.fromkeys(peer for _, peer, _ in figures)), "date": "today", "versions": {}}
    return results


class Figures(unittest.TestCase):
    def test_the_median_is_the_middle_one_or_between_the_middle_two(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median([4, 1, 3, 2]), 2.5)
        self.assertIsNone(stats.median([]))

    def test_a_percentile_is_a_value_that_was_measured(self):
        self.assertEqual(stats.percentile(range(1, 101), 99), 99)
        self.assertEqual(stats.percentile(range(1, 101), 50), 50)
        self.assertEqual(stats.percentile([7], 99), 7)
        self.assertEqual(stats.percentile([1, 2, 3], 99), 3)

    def test_the_slope_leaves_out_what_is_there_without_sessions(self):
        self.assertTrue(math.isclose(stats.slope([(1, 5100), (50, 10000), (200, 25000), (1000, 105000)]), 100))
        self.assertTrue(math.isclose(stats.slope([(0, 0), (1, 1), (2, 5)]), 2.5))
        self.assertIsNone(stats.slope([(1, 5)]))

    def test_nothing_is_divided_by_nothing(self):
        self.assertEqual(stats.ratio(3, 2), 1.5)
        self.assertIsNone(stats.ratio(None, 2))
        self.assertIsNone(stats.ratio(3, 0))
        self.assertEqual(stats.added(110, 100, 200), 0.1)
        self.assertEqual(stats.added(90, 100, 200), -0.1)
        self.assertIsNone(stats.added(110, 100, 100))


class Bars(unittest.TestCase):
    def judged(self, rule, limit, figures):
        one = bars.bar("", "row", "unit", "us", rule, limit)
        return bars.judge(one, run_of({("row", peer, "unit"): value for peer, value in figures.items()}).median)

    def test_each_rule_passes_at_its_limit_and_fails_beyond_it(self):
        self.assertEqual(self.judged("at most × openssh", 0.5, {"us": 5, "openssh": 10}), (0.5, True))
        self.assertEqual(self.judged("at most × openssh", 0.5, {"us": 6, "openssh": 10}), (0.6, False))
        self.assertEqual(self.judged("at least × direct", 0.5, {"us": 5, "direct": 10}), (0.5, True))
        self.assertEqual(self.judged("at least × direct", 0.5, {"us": 4, "direct": 10}), (0.4, False))
        self.assertEqual(self.judged("at most", 12, {"us": 12}), (12, True))
        self.assertEqual(self.judged("at most", 12, {"us": 13}), (13, False))
        self.assertEqual(self.judged("adds at most × openssh", 0.1, {"us": 11, "direct": 10, "openssh": 20}), (0.1, True))
        self.assertEqual(self.judged("adds at most × openssh", 0.1, {"us": 12, "direct": 10, "openssh": 20}), (0.2, False))
        self.assertEqual(self.judged("at most × sftpproxy-plain", 1.5, {"us": 15, "sftpproxy-plain": 10}), (1.5, True))
        self.assertEqual(self.judged("at most × sftpproxy-plain", 1.5, {"us": 16, "sftpproxy-plain": 10}), (1.6, False))

    def test_what_was_not_measured_is_neither_passed_nor_failed(self):
        self.assertEqual(self.judged("at most × openssh", 1, {"us": 5}), (None, None))
        self.assertEqual(self.judged("at most", 1, {"openssh": 5}), (None, None))

    def test_every_bar_is_of_a_peer_that_there_is(self):
        names = {peer.name for peer in peers.load()}
        self.assertLessEqual({one["peer"] for one in bars.TABLE} | {"direct", "openssh"}, names)
        self.assertEqual(len({tuple(one.values()) for one in bars.TABLE}), len(bars.TABLE))

    def test_every_bar_of_a_whole_run_finds_its_row(self):
        figures = {(one["row"], peer, one["metric"]): 1.0 for one in bars.TABLE for peer in ("direct", bars.PLAIN, one["peer"])}
        figures |= {(one["row"], "openssh", one["metric"]): 2.0 for one in bars.TABLE}
        results = run_of(figures)
        self.assertTrue(all(bars.judge(one, results.median)[1] is not None for one in bars.TABLE))
        belongs = [group[2] for group in report.GROUPS]
        self.assertTrue(all(sum(test(row) for test in belongs) == 1 for row in results.rows()), results.rows())


class Report(unittest.TestCase):
    def test_it_shows_medians_ratios_bars_and_changes(self):
        figures = {("get gcm", "direct", "MiB/s"): 300.0, ("get gcm", "openssh", "MiB/s"): 100.0, ("get gcm", "sftpproxy", "MiB/s"): 150.0}
        new, old = run_of(figures), run_of({key: value * 2 for key, value in figures.items()})
        text = report.markdown(new, {}, old)
        self.assertIn("| get gcm | MiB/s | 300 | 100 | 150 |", text)
        self.assertIn("| get gcm | MiB/s | openssh | 3.00 | 1.00 | 1.50 |", text)
        self.assertIn("| one stream | get gcm | sftpproxy | at least × openssh 0.8 | 1.50 | pass |", text)
        self.assertIn("| get gcm | MiB/s | sftpproxy | 300 | 150 | -50.0 % |", text)

    def test_what_is_kept_in_a_file_is_read_again(self):
        results = run_of({("get gcm", "direct", "MiB/s"): 1.5})
        results.ciphers["direct", "gcm"] = {"client": "a", "upstream": "b"}
        results.failures.append(("direct", "put", "why"))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "results.json"
            results.save(path)
            again = Results.load(path)
        self.assertEqual(report.markdown(again, {}), report.markdown(results, {}))

    def test_the_document_has_the_place_for_it(self):
        text = (entry.TOP / "BENCHMARKS.md").read_text()
        self.assertEqual((text.count(entry.BEGIN), text.count(entry.END)), (1, 1))
        self.assertLess(text.index(entry.BEGIN), text.index(entry.END))
        for name in rows.GROUPS:
            self.assertIn(f"`{name}`", text)


class Processes(unittest.TestCase):
    def reaper(self, script):
        command = [sys.executable, pathlib.Path(__file__).with_name("reaper.py"), "sh", "-c", script]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: process.poll() is None and (process.kill(), process.wait()))
        return process

    def until(self, condition):
        end = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), end, "it takes too long")
            time.sleep(0.02)

    def test_the_time_of_an_orphan_that_has_ended_is_counted(self):
        # The inner shell is nobody's child but the reaper's when it works, and gone when it is looked for.
        work = "i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done"
        process = self.reaper(f"sleep 20 & (sh -c '{work}' &)")
        self.until(lambda: procs.size(process.pid)[0] == 2 and procs.cpu(process.pid) > 0.35)
        before = procs.cpu(process.pid)
        time.sleep(0.2)
        self.assertLess(procs.cpu(process.pid) - before, 0.05)

    def test_the_end_of_the_reaper_ends_everything(self):
        process = self.reaper("(sleep 20 &); trap '' TERM; sleep 20 & wait")
        self.until(lambda: procs.size(process.pid)[0] == 4)
        members = list(procs.tree(process.pid))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)
        self.assertEqual([pid for pid in members if procs.tree(pid)], [])

    def test_the_fault_of_one_call_leaves_what_the_others_gave(self):
        given, fault = client.together(lambda number: 1 // number, [(1,), (0,), (1,)], 2)
        self.assertEqual(given, [1, 1])
        self.assertIsInstance(fault, ZeroDivisionError)


class Peers(unittest.TestCase):
    def test_a_file_in_a_folder_is_a_further_peer(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "other.py").write_text("name = 'other'\ndef start(world, upstream): pass\n")
            names = [peer.name for peer in peers.load(folder)]
        self.assertEqual(names[0], "direct")
        self.assertEqual(names[-1], "other")


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1
