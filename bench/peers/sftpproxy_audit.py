"""sftpproxy that looks at everything: start directory, file operations in the log, an audit in a file, and a policy that allows all."""

from peers import sftpproxy

name = "sftpproxy-audit"
packages = sftpproxy.packages
rows = ("get", "put", "stat")


def start(world, upstream):
    settings = {
        "SFTPPROXY_UPSTREAM_LIBRARY": "libssh",
        "SFTPPROXY_LOG": "info",
        "SFTPPROXY_AUDIT": f"file:{world.folder / f'audit-{world.port()}'}",
    }
    return sftpproxy.start(world, upstream, name, settings, ("--home", world.files, "--rules", "/=all"))
