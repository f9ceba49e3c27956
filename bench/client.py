"""The clients of the measurements: OpenSSH's sftp for transfers, ssh with raw SFTP packets for logins and round trips.

SFTP is draft-ietf-secsh-filexfer-02, version 3: a packet is a length of 4 bytes, a type, a request id and the rest.
"""

import concurrent.futures
import os
import select
import struct
import subprocess
import time

INIT, VERSION, STAT, ATTRS = 1, 2, 17, 105

#: How long a login or a round trip may take, in seconds.
ANSWER_LIMIT = 120

#: How long one transfer may take, in seconds.
TRANSFER_LIMIT = 900


class Failed(Exception):
    """A measurement that did not come to its end; the text says where."""


def together(function, calls, most):
    """Calls the function with each tuple of arguments, `most` at a time; returns what came of it and the first fault or None."""
    pool = concurrent.futures.ThreadPoolExecutor(most)
    futures = [pool.submit(function, *call) for call in calls]
    try:
        concurrent.futures.wait(futures)
    finally:
        # A run that is ended from outside does not wait for those that have not begun.
        pool.shutdown(cancel_futures=True)
    faults = [future.exception() for future in futures if future.exception()]
    return [future.result() for future in futures if not future.exception()], faults[0] if faults else None


class Program:
    """A client program on pipes. What it complains of goes to `complaints`, a file that others may share."""

    def __init__(self, command, complaints):
        self.what = command[0]
        self.complaints = complaints
        with open(complaints, "ab") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, bufsize=0)
        self.output = self.process.stdout.fileno()

    def read(self, deadline):
        """Some bytes of its output."""
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
            raise Failed(f"{self.what} is silent for too long")
        data = os.read(self.output, 65536)
        if not data:
            said = self.complaints.read_text(errors="replace").strip()
            raise Failed(f"{self.what} ended with code {self.process.wait()}: {said[-400:]}")
        return data

    def write(self, data):
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            raise Failed(f"{self.what} has ended: {self.complaints.read_text(errors='replace').strip()[-400:]}") from None

    def close(self):
        """Ends it as a user does, or by force after some seconds."""
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Sftp(Program):
    """OpenSSH's sftp, logged in and waiting for commands, so that transfers are measured without the login."""

    MARK = b"Remote working directory:"

    def __init__(self, world, port, login, cipher=None):
        super().__init__(
            ["sftp", *world.ssh_options(cipher), "-P", str(port), "-b", "-", f"{login}@127.0.0.1"], world.folder / "complaints"
        )
        try:
            self.start([])
            self.finish()
        except Failed:
            self.close()
            raise

    def start(self, commands):
        """Gives it commands."""
        self.write("".join(f"{command}\n" for command in [*commands, "pwd"]).encode())

    def finish(self):
        """Waits until it has done them. It ends at the first that fails, since it runs a batch."""
        deadline, held = time.monotonic() + TRANSFER_LIMIT, b""
        while self.MARK not in held or not held.endswith(b"\n"):
            held = (held + self.read(deadline))[-65536:]


class Raw(Program):
    """`ssh -s sftp` with SFTP packets on its pipes, from the VERSION on. `login` is the seconds from its start to that."""

    def __init__(self, world, port, login, options=(), cipher=None):
        command = ["ssh", *world.ssh_options(cipher), *options, "-p", str(port), "-s", f"{login}@127.0.0.1", "sftp"]
        started = time.monotonic()
        super().__init__(command, world.folder / "complaints")
        try:
            self.held = b""
            self.write(struct.pack(">IBI", 5, INIT, 3))
            if self.packet()[0] != VERSION:
                raise Failed("the first answer is no VERSION")
            self.login = time.monotonic() - started
        except Failed:
            self.close()
            raise

    def packet(self):
        """The next packet without its length."""
        deadline = time.monotonic() + ANSWER_LIMIT
        while len(self.held) < 4 or len(self.held) < 4 + struct.unpack_from(">I", self.held)[0]:
            self.held += self.read(deadline)
        end = 4 + struct.unpack_from(">I", self.held)[0]
        packet, self.held = self.held[4:end], self.held[end:]
        return packet

    def stats(self, path, count):
        """Round trip times of `count` STATs, one after the other, in seconds."""
        path = os.fsencode(path)
        times = []
        for number in range(count):
            body = struct.pack(">BII", STAT, number, len(path)) + path
            started = time.perf_counter()
            self.write(struct.pack(">I", len(body)) + body)
            answer = self.packet()
            times.append(time.perf_counter() - started)
            if answer[0] != ATTRS or struct.unpack_from(">I", answer, 1)[0] != number:
                raise Failed(f"STAT is answered with packet type {answer[0]}")
        return times
