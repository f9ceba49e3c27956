"""Runs a command so that nothing of it is lost: `python3 reaper.py COMMAND…`.

It is the parent of every process that the command leaves behind (PR_SET_CHILD_SUBREAPER), so that their CPU time stays in this tree, and
it ends them all on SIGTERM or when its own parent dies. An sshd whose client has left, for example, does not wait for its children.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def end_all(_signal, _frame):
    """SIGTERM first, SIGKILL after half a second; ends this process."""
    import procs

    for number, rounds in ((signal.SIGTERM, 25), (signal.SIGKILL, 100)):
        for _ in range(rounds):
            left = [pid for pid in procs.tree(os.getpid()) if pid != os.getpid()]
            if not left:
                os._exit(0)
            for pid in left:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            reap(os.WNOHANG)
            time.sleep(0.02)
    os._exit(1)


def reap(options):
    """Takes the exit status of children; False when there are none."""
    try:
        while os.waitpid(-1, options)[0]:
            pass
        return True
    except ChildProcessError:
        return False


def main():
    parent = os.getppid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("reaper: the kernel has no child subreapers")
    signal.signal(signal.SIGTERM, end_all)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("reaper: the parent has gone")
    subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    while reap(0):
        pass


if __name__ == "__main__":
    main()
