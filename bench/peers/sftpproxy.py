"""sftpproxy as it comes, its upstream leg by libssh2."""

import os

from peers import Running

name = "sftpproxy"
packages = ("redis-server",)
#: What differs from the defaults.
settings = {"SFTPPROXY_UPSTREAM_LIBRARY": "ssh2"}


#: What is offered by default, chosen: AES-GCM is measured also with a libssh that does not check its tags.
CIPHERS = "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr"


def start(world, upstream, name=name, settings=settings, record=None):
    """`record`: options of `user add` beside those that say where the upstream is; None = a start directory."""
    # Routes in Redis, as a site has them; each instance has its own.
    port = world.port()
    prefix = f"{name}-{port}:"
    state = world.folder / f"{name}-{port}"
    state.mkdir()
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(state),
        "SFTPPROXY_ADDRESS": "127.0.0.1",
        "SFTPPROXY_PORT": str(port),
        "SFTPPROXY_STATE_DIR": str(state),
        "SFTPPROXY_PRIVATEKEY_PATH": str(world.folder / "front-host"),
        "SFTPPROXY_UPSTREAM_KEY_PATH": str(world.folder / "router-user"),
        "SFTPPROXY_REDIS_HOST": "127.0.0.1",
        "SFTPPROXY_REDIS_PORT": str(world.redis()),
        "SFTPPROXY_REDIS_PREFIX": prefix,
        "SFTPPROXY_MAX_SESSIONS": "2000",
        "SFTPPROXY_MAX_STARTUPS": "1000",
        "SFTPPROXY_CIPHERS": CIPHERS,
        "SFTPPROXY_UPSTREAM_CIPHERS": upstream.ciphers or "",
        **settings,
    }
    pin = world.run("ssh-keygen", "-lf", world.folder / "upstream-host.pub").split()[1]
    add = [world.program, "user", "add", "bench", "--key", world.folder / "client.pub", "--remote", "127.0.0.1"]
    add += ["--port", upstream.port, "--user", world.login, "--host-key", pin, "--yes"]
    add += ("--home", world.files) if record is None else record
    world.run(*add, env=environment)
    return Running(world.serve(name, [world.program], port, environment), port, "bench")
