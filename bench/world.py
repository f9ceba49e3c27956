"""The world of one run: a temporary directory, keys, servers on free ports of 127.0.0.1, and the end of it all.

Nothing outlives a run: every server is started under reaper.py, which ends its whole tree when this process dies, and the directory is removed.
"""

import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent

#: How long a server may take until it listens; far above what it takes.
START_LIMIT = 30


class Unavailable(Exception):
    """A peer or a measurement that cannot be had here; the text says why."""


class Server:
    """A started server with everything that it starts: `root` is its reaper, `log` what it says."""

    def __init__(self, process, log):
        self.process, self.root, self.log = process, process.pid, log

    def text(self):
        return self.log.read_text(errors="replace")

    def running(self):
        return self.process.poll() is None

    def stop(self):
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class World:
    """See the module. `space` is how many bytes of files the run needs at the same time."""

    def __init__(self, program, space, delay):
        self.program, self.delay = program, delay
        shm = pathlib.Path("/dev/shm")
        fits = shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 2 * space
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sftpproxy-bench-", dir=shm if fits else None))
        self.in_memory = fits
        self.servers, self.count, self.redis_port = [], 0, None
        self.login = getpass.getuser()
        self.files = self.folder / "files"
        self.local = self.folder / "local"
        self.files.mkdir()
        self.local.mkdir()
        for name in ("client", "router-user", "front-host", "upstream-host"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.folder / name)
        hosts = [f"* {' '.join(self.public(name).split()[:2])}\n" for name in ("front-host", "upstream-host")]
        (self.folder / "known_hosts").write_text("".join(hosts))
        allowed = [self.public("client"), self.public("router-user")]
        (self.folder / "authorized_keys").write_text("\n".join(allowed) + "\n")
        # The clients alone: what an administrator's own proxy lets in.
        (self.folder / "client_keys").write_text(self.public("client") + "\n")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)

    def close(self):
        for server in reversed(self.servers):
            server.process.terminate() if server.running() else None
        for server in self.servers:
            server.stop()
        self.servers = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def public(self, name):
        return (self.folder / f"{name}.pub").read_text().strip()

    def run(self, *command, **options):
        """Runs a short program to its end and returns what it says; an exit code other than 0 is an error."""
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, **options)
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(map(str, command[:3]))} …: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout

    def port(self):
        """A port that nobody listens on at this moment."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def serve(self, name, command, port, environment=None):
        """Starts a server and waits until it takes connections at `port`."""
        self.count += 1
        log = self.folder / f"{name}-{self.count}.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, HERE / "reaper.py", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        server = Server(process, log)
        self.servers.append(server)
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return server
            except OSError:
                if not server.running() or time.monotonic() > end:
                    server.stop()
                    raise Unavailable(f"{name} does not start: {server.text().strip()[-500:]}") from None
                time.sleep(0.05)

    def stop(self, server):
        server.stop()
        if server in self.servers:
            self.servers.remove(server)

    def sshd(self, name, lines, wrapper=()):
        """An sshd whose log says what it has negotiated. `lines` come first and win; returns (server, port of it)."""
        port = self.port()
        config = self.folder / f"{name}-{port}.conf"
        config.write_text(
            "\n".join(lines)
            + f"""
Port {port}
ListenAddress 127.0.0.1
PidFile none
StrictModes no
UseDNS no
UsePAM {"yes" if locked(self.login) else "no"}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
LoginGraceTime 120
MaxStartups 10000
LogLevel INFO
{penalties(self)}
"""
        )
        return self.serve(name, [*wrapper, "/usr/sbin/sshd", "-D", "-e", "-f", config], port), port

    def upstream(self, ciphers=None, extra=(), wrapper=()):
        """The users' own sshd, with its default ciphers or only with these."""
        lines = [
            *extra,
            *([f"Ciphers {ciphers}"] if ciphers else []),
            f"HostKey {self.folder / 'upstream-host'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"Subsystem sftp internal-sftp -d {self.files}",
            # "kex: client->server cipher:" is said at this level; nothing is said per packet.
            "LogLevel DEBUG1",
        ]
        return self.sshd("upstream", lines, wrapper)

    def redis(self):
        """A redis-server for routes, the same for every router; its port."""
        if self.redis_port is None:
            port = self.port()
            options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.folder]
            self.serve("redis", ["redis-server", "--port", port, *options], port)
            self.redis_port = port
        return self.redis_port

    def delayed(self, target, milliseconds):
        """A relay to a port with this round trip time; (server, port)."""
        port = self.port()
        return self.serve("delay", [self.delay, port, target, milliseconds], port), port

    def ssh_options(self, cipher=None):
        """Options of ssh and sftp that make them use nothing but this world."""
        options = ["-F", "none", "-i", str(self.folder / "client")]
        for option in (
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "GlobalKnownHostsFile=none",
            "UpdateHostKeys=no",
            "ConnectTimeout=60",
        ):
            options += ["-o", option]
        return options + (["-c", cipher] if cipher else [])


def locked(login):
    """sshd without PAM refuses an account whose password is locked with "!", as root's is on some distributions."""
    try:
        with open("/etc/shadow") as file:
            return any(line.startswith(f"{login}:!") for line in file)
    except OSError:
        return False


def penalties(world):
    """sshd of OpenSSH 9.8 and newer may shut out an address, which here is everybody's. Older ones do not know the word."""
    test = ["/usr/sbin/sshd", "-t", "-f", "/dev/null", "-o", "PerSourcePenalties=no", "-h", world.folder / "upstream-host"]
    known = subprocess.run(test, capture_output=True, check=False).returncode == 0
    return "PerSourcePenalties no" if known else ""


def end_on_signals():
    """The signals that end a run do it by an exception, so that everything is put away."""

    def leave(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
