"""The rows: what is measured, and how. Each function measures one group of rows for all peers."""

import filecmp
import os
import shutil
import socket
import threading
import time

import procs
import stats
from client import Failed, Sftp, together

MIB = 1 << 20

#: Sessions that are opened at the same time, in the login rate and before the rows of many sessions.
PARALLEL = 8

#: STATs before those that count.
WARM_UP = 200

#: Turns of a round of STATs.
TURNS = 100

#: Variants of the login rows, and what follows their name.
KEY_EXCHANGES = (("default", ""), ("curve25519", ", curve25519"))

#: Files of the row of small files, and bytes of each.
SMALL_FILES, SMALL_BYTES = 1000, 4096


def source(world, name, size):
    """A file of random bytes that is in the upstream's folder and in the client's (as one file with two names)."""
    path = world.files / name
    if not path.exists():
        with open(path, "wb") as file:
            block = os.urandom(16 * MIB)
            for start in range(0, size, len(block)):
                # Blocks differ, so that a block in the wrong place is seen.
                file.write((start.to_bytes(8, "big") + block[8:])[: size - start])
        os.link(path, world.local / name)
    return name


def direction_commands(world, direction, name, number):
    """sftp's command for one transfer, where it comes from and where it goes."""
    if direction == "put":
        come, go = world.local / name, world.files / f"{name}.put{number}"
    else:
        come, go = world.files / name, world.local / f"{name}.get{number}"
    return f'{direction} "{come}" "{go}"', come, go


def transfer(bench, row, direction, variant, size, streams=1, rounds=1, kind=None, **rtt):
    """One or more streams of `size` bytes each: MiB/s altogether, and the proxy's CPU seconds per GiB."""
    world = bench.world
    name = source(world, f"data-{size}", size)

    def measure(instance, number):
        plan = [direction_commands(world, direction, name, stream) for stream in range(streams)]
        call = (world, instance.port, instance.login, instance.cipher)
        clients, fault = together(Sftp, [call] * streams, PARALLEL)
        try:
            if fault:
                raise fault
            cpu, started = instance.cpu(), time.monotonic()
            for client, (command, _, _) in zip(clients, plan):
                client.start([command])
            for client in clients:
                client.finish()
            seconds = time.monotonic() - started
            spent = None if cpu is None else instance.cpu() - cpu
            for _, come, go in plan:
                if go.stat().st_size != size or (number == 0 and not filecmp.cmp(come, go, shallow=False)):
                    raise Failed(f"{go.name} is not what was sent")
        finally:
            for client in clients:
                client.close()
            for _, _, go in plan:
                go.unlink(missing_ok=True)
        instance.settle()
        total = streams * size
        bench.results.add(row, instance.peer.name, "MiB/s", total / MIB / seconds)
        if spent is not None:
            bench.results.add(row, instance.peer.name, "CPU s/GiB", spent * 1024 * MIB / total)

    bench.rounds(kind or row, row, rounds, variant, measure, **rtt)


def one_stream(bench, direction):
    for variant in ("gcm", "chacha20", "best"):
        row = f"{direction} {variant}"
        transfer(bench, row, direction, variant, bench.options.size * MIB, rounds=bench.options.rounds, kind=direction)


def streams(bench):
    """The same number of bytes by 4 and by 16 streams."""
    total = bench.options.size * MIB // 2
    for count in (4, 16):
        for direction in ("get", "put"):
            row = f"{direction} {count} streams"
            transfer(bench, row, direction, "gcm", total // count, count, bench.options.rounds, "streams")


def small(bench):
    """1,000 files of 4 KiB each way by `get -r` and `put -r`: files/s, and the proxy's CPU milliseconds per file."""
    world, count = bench.world, SMALL_FILES
    for folder in (world.files / "small", world.local / "small"):
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:04}").write_bytes(number.to_bytes(4, "big") + os.urandom(SMALL_BYTES - 4))
    for direction in ("get", "put"):
        row = f"{direction} small files"

        def measure(instance, _number, direction=direction, row=row):
            _, come, go = direction_commands(world, direction, "small", 0)
            try:
                with Sftp(world, instance.port, instance.login, instance.cipher) as client:
                    cpu, started = instance.cpu(), time.monotonic()
                    client.start([f'{direction} -r "{come}" "{go}"'])
                    client.finish()
                    seconds = time.monotonic() - started
                    spent = None if cpu is None else instance.cpu() - cpu
                names = sorted(os.listdir(come))
                if names != sorted(os.listdir(go)) or filecmp.cmpfiles(come, go, names, shallow=False)[0] != names:
                    raise Failed("the files are not those that were sent")
            finally:
                shutil.rmtree(go, ignore_errors=True)
            instance.settle()
            bench.results.add(row, instance.peer.name, "files/s", count / seconds)
            if spent is not None:
                bench.results.add(row, instance.peer.name, "CPU ms/file", spent * 1000 / count)

        bench.rounds("small", row, bench.options.rounds, "default", measure)


def logins_in_a_row(bench, instance, row, count):
    """Milliseconds from the start of ssh to the VERSION, one after the other, and the proxy's CPU milliseconds."""
    cpu = instance.cpu()
    for _ in range(count):
        with instance.raw() as session:
            bench.results.add(row, instance.peer.name, "login ms", session.login * 1000)
    instance.settle()
    if cpu is not None:
        bench.results.add(row, instance.peer.name, "CPU ms/login", (instance.cpu() - cpu) * 1000 / count)


def login(bench):
    count = -(-bench.options.logins // bench.options.rounds)
    for variant, row in KEY_EXCHANGES:
        bench.rounds("login", f"login{row}", bench.options.rounds, variant, lambda i, _, row=row: logins_in_a_row(bench, i, f"login{row}", count))


def one_login(instance):
    with instance.raw():
        pass


def logins(bench):
    """Logins per second, eight at a time, from the first start to the last end."""

    def measure(instance, row):
        count = 4 * PARALLEL
        cpu, started = instance.cpu(), time.monotonic()
        _, fault = together(one_login, [(instance,)] * count, PARALLEL)
        if fault:
            raise fault
        bench.results.add(row, instance.peer.name, "logins/s", count / (time.monotonic() - started))
        instance.settle()
        if cpu is not None:
            bench.results.add(row, instance.peer.name, "CPU ms/login", (instance.cpu() - cpu) * 1000 / count)

    for variant, row in KEY_EXCHANGES:
        bench.rounds("logins", f"logins{row}", bench.options.rounds, variant, lambda i, _, row=row: measure(i, f"logins{row}"))


def round_trips(bench, instance, session, row, count):
    """STATs on an open session: microseconds of the median and of 99 %, and the proxy's CPU microseconds."""
    path = bench.world.files
    session.stats(path, WARM_UP)
    cpu = instance.cpu()
    times = [seconds * 1e6 for seconds in session.stats(path, count)]
    add_round_trips(bench, instance.peer.name, row, times, [None if cpu is None else instance.cpu() - cpu])


def add_round_trips(bench, name, row, times, spent):
    """`times` in microseconds; `spent` CPU seconds, None where there is no proxy."""
    bench.results.add(row, name, "p50 µs", stats.percentile(times, 50))
    bench.results.add(row, name, "p99 µs", stats.percentile(times, 99))
    if None not in spent:
        bench.results.add(row, name, "CPU µs/STAT", sum(spent) * 1e6 / len(times))


def stat(bench):
    """STATs on one open session a peer, in short turns: which core a thread wakes up on changes from moment to moment and moves a
    round trip by more than the peers differ, so that only figures of the same moment can be compared."""
    turns, count = bench.options.rounds * TURNS, max(1, bench.options.stats // TURNS)
    sessions, taken = {}, {}

    def measure(instance, _number):
        name = instance.peer.name
        if name not in sessions:
            sessions[name] = instance.raw()
            sessions[name].stats(bench.world.files, WARM_UP)
        cpu = instance.cpu()
        times = [seconds * 1e6 for seconds in sessions[name].stats(bench.world.files, count)]
        taken.setdefault(name, []).append((times, None if cpu is None else instance.cpu() - cpu))

    bench.rounds("stat", "stat", turns, "default", measure)
    together(lambda session: session.close(), [(session,) for session in sessions.values()], PARALLEL)
    for name, all_turns in taken.items():
        for start in range(0, len(all_turns), TURNS):
            part = all_turns[start : start + TURNS]
            add_round_trips(bench, name, "stat", [took for times, _ in part for took in times], [spent for _, spent in part])
    # What looking at everything adds to looking at nothing, turn by turn.
    medians = {name: [stats.percentile(times, 50) for times, _ in turns] for name, turns in taken.items()}
    for plain, audit in zip(medians.get("sftpproxy-plain", []), medians.get("sftpproxy-audit", [])):
        bench.results.add("stat", "sftpproxy-audit", "µs over plain", audit - plain)


def sessions_row(count):
    return "1 session" if count == 1 else f"{count} sessions"


def sessions(bench):
    """Many idle sessions: memory, CPU, and what a STAT costs among them. One round; each peer has an instance of its own."""

    def measure(instance, _number):
        peer, held = instance.peer, []
        counts = bench.options.sessions
        # Other proxies' memory is known well enough at fewer: their logins are what takes the time of a run.
        if not peer.name.startswith("sftpproxy") and not bench.options.all_sessions:
            counts = [count for count in counts if count <= 200]
        try:
            for count in counts:
                bench.progress(f"{sessions_row(count)}, {peer.name}")
                opened, fault = together(instance.raw, [()] * (count - len(held)), PARALLEL)
                held += opened
                if fault:
                    raise fault
                time.sleep(bench.options.settle)
                row = sessions_row(count)
                if instance.root:
                    bench.results.add(row, peer.name, "PSS KiB", procs.pss(instance.root))
                if instance.root and count in (counts[0], counts[-1]):
                    cpu, started = instance.cpu(), time.monotonic()
                    time.sleep(bench.options.idle)
                    percent = (instance.cpu() - cpu) * 100 / (time.monotonic() - started)
                    bench.results.add(row, peer.name, "idle CPU %", percent)
                round_trips(bench, instance, held[0], row, bench.options.stats)
        finally:
            together(lambda session: session.close(), [(session,) for session in held], PARALLEL)
            instance.stop()
            bench.instances.clear()
        points = [(count, bench.results.median(sessions_row(count), peer.name, "PSS KiB")) for count in counts]
        if instance.root:
            bench.results.add("sessions", peer.name, "KiB/session", stats.slope(points))
            if len(points) > 2:
                growth = stats.ratio(stats.slope(points[-2:]), stats.slope(points[-3:-1]))
                if growth is not None:
                    bench.results.add("sessions", peer.name, "last slope/slope before", growth)

    bench.end_instances()
    # The cheaper key exchange, since only its result is wanted here.
    bench.rounds("sessions", "sessions", 1, "curve25519", measure)


def relay_speed(world):
    """MiB/s that the delaying relay carries without a delay, so that it is seen not to be what limits."""
    total, block = 512 * MIB, bytes(MIB)
    with socket.create_server(("127.0.0.1", 0)) as sink:
        relay, port = world.delayed(sink.getsockname()[1], 0)
        # The first connection is the one that looked whether the relay listens.
        sink.accept()[0].close()
        with socket.create_connection(("127.0.0.1", port)) as source, sink.accept()[0] as drain:
            started, got = time.monotonic(), 0
            sender = threading.Thread(target=lambda: [source.sendall(block) for _ in range(total // MIB)], daemon=True)
            sender.start()
            while got < total:
                data = drain.recv(MIB)
                if not data:
                    raise Failed("the delaying relay ends a connection")
                got += len(data)
            seconds = time.monotonic() - started
            sender.join()
    world.stop(relay)
    return total / MIB / seconds


def rtt(bench, side):
    """Transfers and logins with a delay on the client's or on the upstream's side."""
    bench.results.facts["delaying relay without a delay"] = f"{relay_speed(bench.world):.0f} MiB/s"
    for milliseconds in bench.options.rtt:
        delay = {f"{side}_rtt": milliseconds}
        kind, words = f"rtt-{side}", f"{milliseconds} ms on the {side}'s side"
        for direction in ("get", "put"):
            transfer(bench, f"{direction}, {words}", direction, "default", bench.options.rtt_size * MIB, 1, 1, kind, **delay)
        row = f"login, {words}"
        bench.rounds(kind, row, 1, "default", lambda i, _, row=row: logins_in_a_row(bench, i, row, bench.options.rtt_logins), **delay)
        bench.end_instances()


#: The groups in the order in which they are measured, by the name that --rows takes.
GROUPS = {
    "get": lambda bench: one_stream(bench, "get"),
    "put": lambda bench: one_stream(bench, "put"),
    "streams": streams,
    "small": small,
    "login": login,
    "logins": logins,
    "stat": stat,
    "rtt-client": lambda bench: rtt(bench, "client"),
    "rtt-upstream": lambda bench: rtt(bench, "upstream"),
    "sessions": sessions,
}
