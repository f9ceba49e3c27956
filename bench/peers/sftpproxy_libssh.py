"""sftpproxy with its upstream leg by libssh."""

from peers import sftpproxy

name = "sftpproxy-libssh"
packages = sftpproxy.packages
settings = {"SFTPPROXY_UPSTREAM_LIBRARY": "libssh"}


def start(world, upstream):
    return sftpproxy.start(world, upstream, name, settings)
