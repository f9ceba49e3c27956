"""sftpproxy with its upstream leg by libssh, upstream connections being kept for 10 s: for the login rows."""

from peers import sftpproxy

name = "sftpproxy-reuse"
packages = sftpproxy.packages
rows = ("login", "logins")
settings = {"SFTPPROXY_UPSTREAM_LIBRARY": "libssh", "SFTPPROXY_UPSTREAM_REUSE": "10"}


def start(world, upstream):
    return sftpproxy.start(world, upstream, name, settings)
