"""ProFTPD with mod_sftp and mod_proxy as a reverse proxy. A speed peer only.

mod_proxy cannot sign as the user, so towards the upstream it logs in by host: the upstream's sshd has to believe the proxy's word. For that it
runs in a mount namespace of its own, where the account's home is a folder of this world with the .shosts that such a login needs.
"""

import os
import pathlib
import pwd
import socket

from peers import Running
from world import Unavailable

name = "proftpd"
packages = ("proftpd-core", "proftpd-mod-crypto", "proftpd-mod-proxy")
version = ("proftpd", "-v")
rows = ("get", "put", "streams", "small", "stat", "rtt-client")

MODULE = pathlib.Path("/usr/lib/proftpd/mod_sftp.so")


def start(world, upstream):
    if os.geteuid() != 0:
        raise Unavailable("its login at the upstream by host needs root")
    # 1.3.8 has no chacha20-poly1305.
    lacks = [cipher for cipher in (upstream.ciphers or "").split(",") if cipher.encode() not in MODULE.read_bytes()]
    if lacks:
        raise Unavailable(f"mod_sftp has no {lacks[0]}")
    by_host = upstream_by_host(world, upstream.ciphers)
    port = world.port()
    folder = world.folder / f"proftpd-{port}"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables").chmod(0o700)
    # mod_sftp reads keys of users in the format of RFC 4716.
    keys = folder / "keys"
    keys.write_text(world.run("ssh-keygen", "-e", "-m", "RFC4716", "-f", world.folder / "client.pub"))
    config = folder / "proftpd.conf"
    ciphers = (upstream.ciphers or "aes256-gcm@openssh.com,aes128-gcm@openssh.com").replace(",", " ")
    config.write_text(
        f"""
LoadModule mod_tls.c
LoadModule mod_sftp.c
LoadModule mod_proxy.c
ServerType standalone
ServerName bench
DefaultAddress 127.0.0.1
Port {port}
PidFile {folder}/pid
ScoreboardFile {folder}/scoreboard
DelayEngine off
UseReverseDNS off
MaxInstances 2000
RootLogin on
RequireValidShell off
User {world.login}
Group {pwd.getpwnam(world.login).pw_name}
SystemLog {folder}/system.log
WtmpLog off
TransferLog none
SFTPEngine on
SFTPLog {folder}/sftp.log
SFTPHostKey {world.folder}/front-host
SFTPAuthorizedUserKeys file:{keys}
SFTPAuthMethods publickey
SFTPCiphers {ciphers}
ProxyEngine on
ProxyLog {folder}/proxy.log
ProxyTables {folder}/tables
ProxyRole reverse
ProxyReverseServers sftp://127.0.0.1:{by_host.port}
ProxySFTPHostKey {world.folder}/router-user
ProxySFTPCiphers {ciphers}
"""
    )
    running = Running(world.serve(name, ["/usr/sbin/proftpd", "-n", "-q", "-c", config], port), port, world.login)
    running.others = [by_host.server]
    return running


def upstream_by_host(world, ciphers):
    """The same sshd, but for the login by host."""
    home = world.folder / "home"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    hosts = {"127.0.0.1", "localhost", socket.gethostname(), socket.getfqdn()}
    (home / ".shosts").write_text("".join(f"{host} {world.login}\n" for host in sorted(hosts)))
    (home / ".ssh" / "known_hosts").write_text(f"* {world.public('router-user')}\n")
    extra = ["HostbasedAuthentication yes", "HostbasedUsesNameFromPacketOnly yes", "IgnoreRhosts no"]
    account = pwd.getpwnam(world.login).pw_dir
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", script, home, account]
    server, port = world.upstream(ciphers, extra, wrapper)
    return type("Upstream", (), {"server": server, "port": port})
