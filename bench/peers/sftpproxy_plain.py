"""sftpproxy that looks at nothing: no start directory, no file operations in the log, no audit, no policy. What the next one is measured against."""

from peers import sftpproxy

name = "sftpproxy-plain"
packages = sftpproxy.packages
rows = ("get", "put", "stat")
settings = {"SFTPPROXY_UPSTREAM_LIBRARY": "libssh", "SFTPPROXY_LOG": "info,sftpproxy::file=off"}


def start(world, upstream):
    return sftpproxy.start(world, upstream, name, settings, ())
