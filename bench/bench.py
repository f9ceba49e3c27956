"""One run: which peers take part, their running instances, and the loop that interleaves them."""

import re
import subprocess
import sys
import time
import types

import procs
from client import Failed, Raw
from world import Unavailable

AES, CHACHA = "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"

#: Ciphers of the client's leg and of the upstream's sshd; None = what the programs agree on by themselves.
VARIANTS = {
    "gcm": (AES, AES),
    "chacha20": (CHACHA, CHACHA),
    "default": (None, None),
    # The cheapest cipher towards the client, and towards the upstream the one that the proxy itself prefers.
    "best": (AES, None),
    # As "default", but for the key exchange: libssh 0.10 and libssh2 know no sntrup761, which costs OpenSSH's own programs much.
    "curve25519": (None, None),
}


class Instance:
    """A peer in front of an upstream of a variant, having been used once."""

    def __init__(self, bench, peer, variant, upstream_rtt=0, client_rtt=0):
        world = bench.world
        self.bench, self.peer, self.variant = bench, peer, variant
        self.cipher, ciphers = VARIANTS[variant]
        self.kex = "curve25519-sha256" if variant == "curve25519" else None
        self.upstream = bench.upstream(ciphers, self.kex)
        self.relays = []
        port = self.upstream.port
        if upstream_rtt:
            relay, port = world.delayed(port, upstream_rtt)
            self.relays.append(relay)
        self.running = peer.start(world, types.SimpleNamespace(port=port, ciphers=ciphers))
        self.port, self.login = self.running.port, self.running.login
        self.root = self.running.server.root if self.running.server else None
        if client_rtt:
            relay, self.port = world.delayed(self.port, client_rtt)
            self.relays.append(relay)
        try:
            self.probe()
        except Failed as error:
            self.stop()
            raise Unavailable(str(error)) from None
        if self.root:
            time.sleep(0.3)
            self.quiet = procs.size(self.root)

    def probe(self):
        """Logs in once, so that everything that is made once is there, and notes what was negotiated."""
        logs = [self.upstream.server, *self.running.others]
        before = [len(server.text()) for server in logs]
        words = self.bench.world.folder / "probe"
        words.write_bytes(b"")
        with self.raw(options=("-v", "-E", str(words))):
            pass
        said = "".join(server.text()[start:] for server, start in zip(logs, before))
        pair = {"client": negotiated(words.read_text(errors="replace")), "upstream": negotiated(said)}
        self.bench.results.ciphers[self.peer.name, self.variant] = pair

    def raw(self, options=()):
        kex = ("-o", f"KexAlgorithms={self.kex}") if self.kex else ()
        return Raw(self.bench.world, self.port, self.login, (*options, *kex), self.cipher)

    def cpu(self):
        """CPU seconds of the proxy so far, or None where there is no proxy."""
        return procs.cpu(self.root) if self.root else None

    def settle(self):
        """Waits until the proxy has put away its sessions."""
        if self.root:
            procs.settle(self.root, self.quiet)

    def stop(self):
        for relay in self.relays:
            self.bench.world.stop(relay)
        self.running.stop(self.bench.world)


def negotiated(words):
    """Cipher and key exchange by what OpenSSH's programs say at their first level of debugging."""
    found = [re.findall(pattern, words) for pattern in (r"kex: client->server cipher: (\S+)", r"kex: algorithm: (\S+)")]
    return ", ".join(names[-1] if names else "?" for names in found)


class Bench:
    """See the module."""

    def __init__(self, world, peers, options, results):
        self.world, self.peers, self.options, self.results = world, peers, options, results
        self.upstreams, self.instances, self.absent = {}, {}, set()
        self.started, self.said = time.monotonic(), 0.0

    def upstream(self, ciphers, kex=None):
        """The sshd with these algorithms, one for all peers."""
        if (ciphers, kex) not in self.upstreams:
            server, port = self.world.upstream(ciphers, [f"KexAlgorithms {kex}"] if kex else [])
            self.upstreams[ciphers, kex] = types.SimpleNamespace(server=server, port=port)
        return self.upstreams[ciphers, kex]

    def instance(self, peer, variant, **rtt):
        """The peer's running instance for this; made when it is first asked for."""
        key = (peer.name, variant, *sorted(rtt.items()))
        if key not in self.instances:
            self.instances[key] = Instance(self, peer, variant, **rtt)
        return self.instances[key]

    def end_instances(self):
        for instance in self.instances.values():
            instance.stop()
        self.instances = {}

    def takes_part(self, peer, kind):
        rows = getattr(peer, "rows", None)
        return rows is None or kind in rows

    def rounds(self, kind, row, count, variant, measure, **rtt):
        """Measures a row of all peers, `count` times, A B C, A B C, …: `measure(instance, round)` adds to the results."""
        for number in range(count):
            for peer in self.peers:
                if not self.takes_part(peer, kind) or (peer.name, row) in self.absent:
                    continue
                self.progress(f"{row}, round {number + 1} of {count}, {peer.name}")
                try:
                    measure(self.instance(peer, variant, **rtt), number)
                except Unavailable as error:
                    self.skip(self.results.unavailable, peer, row, error)
                except (Failed, OSError, subprocess.SubprocessError) as error:
                    self.skip(self.results.failures, peer, row, error)

    def skip(self, kind, peer, row, error):
        """Leaves this row of this peer out from now on."""
        self.absent.add((peer.name, row))
        reason = " ".join(str(error).split())[:300]
        kind.append((peer.name, row, reason))
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{clear}{row}: without {peer.name}: {reason}", file=sys.stderr)

    def progress(self, text):
        """One line that replaces itself on a terminal; elsewhere a line every ten seconds at most."""
        now = time.monotonic()
        minutes, seconds = divmod(int(now - self.started), 60)
        line = f"{minutes:02}:{seconds:02}  {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif now - self.said > 10:
            self.said = now
            print(line, file=sys.stderr, flush=True)
