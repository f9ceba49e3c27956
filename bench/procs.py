"""What the kernel says of process trees: /proc/PID/stat and smaps_rollup, as proc(5) describes them, and CPU-time clocks."""

import os
import time

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """Fields of /proc/PID/stat from the state on, which is number 0 here; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b") ", 1)[1].split()
    except (OSError, IndexError):
        return None


def tree(root):
    """The process and all that descend from it, by process id: {pid: fields of its stat}."""
    everything, children = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(name)
            if fields:
                everything[int(name)] = fields
                children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        if pid in everything and pid not in found:
            found[pid] = everything[pid]
            todo += children.get(pid, [])
    return found


def cpu(root):
    """CPU seconds of the tree up to now, those of threads and children that have ended included.

    A living process's own time is exact (its CPU-time clock, clock_getcpuclockid(3)); that of ended children comes in ticks of 10 ms from
    their parents. Each tree is started by reaper.py, which also inherits orphans, so that no child's time is lost to init.
    """
    total = 0.0
    for pid, fields in tree(root).items():
        try:
            total += time.clock_gettime(~pid << 3 | 2)
        except OSError:
            # It has ended since, or the kernel does not tell.
            total += sum(map(int, fields[11:13])) / TICKS
        total += sum(map(int, fields[13:15])) / TICKS
    return total


def size(root):
    """(processes, threads) of the tree."""
    members = tree(root)
    return len(members), sum(int(fields[17]) for fields in members.values())


def settle(root, quiet, limit=5.0):
    """Waits until the tree is not larger than `quiet`, a result of size(); False when it still is after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        now = size(root)
        if now[0] <= quiet[0] and now[1] <= quiet[1]:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)


def pss(root):
    """Proportional set size of the tree in KiB, without `root` itself, which is our reaper."""
    total = 0
    for pid in tree(root):
        if pid != root:
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
            except OSError:
                pass
    return total
