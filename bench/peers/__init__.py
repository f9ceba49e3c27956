"""Peers: one small file each. What such a file has:

    name        in the tables
    packages    Debian packages that it needs (optional)
    version     a command whose first line says its version (optional)
    rows        the only rows that it takes part in (optional; default all)
    start(world, upstream) -> Running
                brings it up in front of the sshd at 127.0.0.1:`upstream.port`, whose ciphers are `upstream.ciphers` (None = its default);
                servers are started with `world.serve`, so that their processes are charged and ended. It raises world.Unavailable with the
                reason where it cannot be had.

The client logs in with `world.folder / "client"` and knows the host key `world.folder / "front-host"` for every port. The upstream takes
`world.folder / "router-user"` and has the host key `world.folder / "upstream-host"`.
"""

import importlib
import importlib.util
import pathlib
import sys

#: The order of the tables.
DEFAULT = ("direct", "haproxy", "openssh", "proftpd", "sftpproxy", "sftpproxy_libssh", "sftpproxy_reuse", "sftpproxy_plain", "sftpproxy_audit")


class Running:
    """A peer that runs: its server (None = there is none to charge), the port that clients connect to, and the user name that they give."""

    def __init__(self, server, port, login):
        self.server, self.port, self.login = server, port, login
        #: Servers that it needs beside itself and that are not charged.
        self.others = []

    def stop(self, world):
        for server in (self.server, *self.others):
            if server is not None:
                world.stop(server)


def load(folder=None):
    """Our own peers, then those of `folder`, each a file NAME.py."""
    found = [importlib.import_module(f"peers.{module}") for module in DEFAULT]
    for path in sorted(pathlib.Path(folder).glob("*.py")) if folder else []:
        spec = importlib.util.spec_from_file_location(f"further_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found.append(module)
    return found
