"""HAProxy in TCP mode: the limit of any relay. It does not see the user, so it cannot route by user."""

from peers import Running

name = "haproxy"
packages = ("haproxy",)
version = ("haproxy", "-v")


def start(world, upstream):
    port = world.port()
    config = world.folder / f"haproxy-{port}.cfg"
    config.write_text(
        f"""
global
    maxconn 5000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen sftp
    bind 127.0.0.1:{port}
    server upstream 127.0.0.1:{upstream.port}
"""
    )
    return Running(world.serve(name, ["/usr/sbin/haproxy", "-db", "-f", config], port), port, world.login)
