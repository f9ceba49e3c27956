"""The entry of scripts/bench; see its --help and BENCHMARKS.md."""

import argparse
import datetime
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

import peers
import rows
from results import Results
from world import TOP, Unavailable, World, end_on_signals

BEGIN, END = "<!-- the last run: begin, written by scripts/bench --write -->", "<!-- the last run: end -->"

#: What --quick changes: fewer and smaller, for a look at whether something is much better or worse.
QUICK = {"size": 256, "rounds": 1, "logins": 6, "stats": 1000, "sessions": [1, 20, 60], "settle": 2.0, "idle": 5.0, "rtt": [20], "rtt_size": 16, "rtt_logins": 2}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the router against what would be run in its place.")
    add = parser.add_argument
    add("--rows", default=",".join(rows.GROUPS), help="which groups, comma-separated; default all: %(default)s")
    add("--only", metavar="PEERS", default="", help="which peers, comma-separated, by their names in the tables; default all")
    add("--peers", metavar="DIR", help="a folder with further peers, a file NAME.py each; bench/peers/__init__.py says what is in one")
    add("--quick", action="store_true", help="fewer rounds and smaller sizes: some minutes; its figures are no results")
    add("--rounds", type=int, default=3, help="rounds of each row but those of sessions and round trip times; default %(default)s")
    add("--size", type=int, default=1024, metavar="MIB", help="size of the file of one stream; default %(default)s")
    add("--logins", type=int, default=20, help="logins of each peer one after the other; default %(default)s")
    add("--stats", type=int, default=3000, help="STATs a round; default %(default)s")
    add("--sessions", type=numbers, default=[1, 50, 200, 1000], metavar="N,…", help="numbers of idle sessions; default 1,50,200,1000")
    add("--all-sessions", action="store_true", help="more than 200 sessions also for other peers than sftpproxy (slow logins: half an hour)")
    add("--settle", type=float, default=5.0, metavar="SECONDS", help="silence before memory is read; default %(default)g")
    add("--idle", type=float, default=20.0, metavar="SECONDS", help="how long the CPU time of idle sessions is watched; default %(default)g")
    add("--rtt", type=numbers, default=[20, 100], metavar="MS,…", help="round trip times in ms; default 20,100")
    add("--rtt-size", type=int, default=64, metavar="MIB", help="size of their files; default %(default)s")
    add("--rtt-logins", type=int, default=5, metavar="N", help="logins of theirs; default %(default)s")
    add("--out", type=pathlib.Path, metavar="DIR", help="report.md, results.json and plots go here; default target/bench")
    add("--compare", type=pathlib.Path, metavar="JSON", help="results of an earlier run, for a table of changes")
    add("--write", action="store_true", help="put the report into BENCHMARKS.md and its plots into bench/plots")
    add("--strict", action="store_true", help="exit code 1 when a bar is not passed")
    add("--from", dest="source", type=pathlib.Path, metavar="JSON", help="measure nothing: report on these results")
    add("--packages", action="store_true", help="print the Debian packages that this run needs, and end")
    add("--self-test", action="store_true", help="test the arithmetic of this program, and end")
    options = parser.parse_args()
    if options.quick:
        for name, value in QUICK.items():
            if getattr(options, name) == parser.get_default(name):
                setattr(options, name, value)
    unknown = [name for name in options.rows.split(",") if name not in rows.GROUPS]
    if unknown:
        parser.error(f"no such rows: {', '.join(unknown)}; there are {', '.join(rows.GROUPS)}")
    limits = {"rounds": 1, "size": 1, "logins": 1, "stats": 100, "rtt_size": 1, "rtt_logins": 1, "settle": 0, "idle": 1}
    for name, least in limits.items():
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} is at least {least}")
    return options, parser


def numbers(text):
    values = sorted({int(word) for word in text.split(",")})
    if values[0] < 1:
        raise ValueError
    return values


def chosen(options, parser):
    """The peers that take part. direct and openssh are what ratios are taken of; leaving them out leaves those out."""
    everybody = peers.load(options.peers)
    wanted = options.only.split(",") if options.only else [peer.name for peer in everybody]
    names = [peer.name for peer in everybody]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"no such peers: {', '.join(unknown)}; there are {', '.join(names)}")
    return [peer for peer in everybody if peer.name in wanted]


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=TOP)
    except OSError:
        return "not there"
    return ((done.stdout + done.stderr).strip().splitlines() or ["?"])[0]


def machine(taking_part, program):
    """What a reader has to know to judge the figures."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    try:
        release = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        release = "?"
    # "?" = it says nothing.
    dirty = "" if first_line("git", "status", "--porcelain", "--untracked-files=no") == "?" else " with changes"
    versions = {peer.name: first_line(*peer.version) for peer in taking_part if hasattr(peer, "version")}
    versions |= {"sftpproxy": first_line(program, "--version"), "redis": first_line("redis-server", "--version")}
    versions |= {"libssh": first_line("pkg-config", "--modversion", "libssh"), "rustc": first_line("rustc", "--version")}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "scripts/bench " + " ".join(word for word in sys.argv[1:]),
        "commit": first_line("git", "rev-parse", "--short=12", "HEAD") + dirty,
        "machine": f"{os.cpu_count()} cores of {model}, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "system": f"{release}, Linux {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "versions": versions,
        "peers": [peer.name for peer in taking_part],
    }


def measure(options, taking_part):
    from bench import Bench

    # A thousand sessions have three descriptors each here.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 4 * max(options.sessions) + 1000
    if most != resource.RLIM_INFINITY and most < wanted:
        sys.exit(f"bench: {wanted} open files are needed and {most} allowed: raise the hard limit or give fewer --sessions")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    program, delay = TOP / "target/release/sftpproxy", TOP / "target/release/bench-delay"
    results = Results()
    results.facts = machine(taking_part, program)
    started = time.monotonic()
    end_on_signals()
    # One source and what is made of it, and room for the other rows.
    world = World(program, (2 * options.size + 2 * options.rtt_size + 200) << 20, delay)
    bench = Bench(world, taking_part, options, results)
    results.facts["files"] = "in memory (/dev/shm)" if world.in_memory else str(world.folder.parent)
    try:
        for name, group in rows.GROUPS.items():
            if name in options.rows.split(","):
                group(bench)
    finally:
        world.close()
    results.facts["minutes"] = round((time.monotonic() - started) / 60, 1)
    results.facts["load after"] = f"{os.getloadavg()[0]:.2f}"
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return results


def write(results, report):
    """Puts report and plots where the documents are."""
    import plots

    folder = TOP / "bench/plots"
    for old in folder.glob("*.svg"):
        old.unlink()
    pictures = {name: path.relative_to(TOP) for name, path in plots.draw(results, folder).items()}
    path = TOP / "BENCHMARKS.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{report.markdown(results, pictures)}\n{END}{after}")


def main():
    options, parser = arguments()
    if options.self_test:
        import selftest

        return selftest.main()
    taking_part = chosen(options, parser)
    if options.packages:
        needed = ["openssh-client", "openssh-server", "python3-matplotlib"]
        print("\n".join(dict.fromkeys(needed + [package for peer in taking_part for package in getattr(peer, "packages", ())])))
        return 0

    import bars
    import plots
    import report

    old = Results.load(options.compare) if options.compare else None
    try:
        results = Results.load(options.source) if options.source else measure(options, taking_part)
    except Unavailable as error:
        sys.exit(f"bench: {error}")
    out = options.out or TOP / "target/bench"
    out.mkdir(parents=True, exist_ok=True)
    results.save(out / "results.json")
    pictures = {name: path.relative_to(out) for name, path in plots.draw(results, out / "plots").items()}
    text = report.markdown(results, pictures, old)
    (out / "report.md").write_text(text)
    print(text)
    if options.write:
        write(results, report)
    failed = [one for one in bars.TABLE if bars.judge(one, results.median)[1] is False]
    print(f"bars not passed: {len(failed)}; the report is in {out}", file=sys.stderr)
    return 1 if results.failures or (options.strict and failed) else 0


if __name__ == "__main__":
    sys.exit(main())
