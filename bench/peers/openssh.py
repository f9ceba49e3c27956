"""An sshd whose ForceCommand is an ssh to the upstream: what an administrator would do today without further software."""

from peers import Running

name = "openssh"
packages = ("openssh-server", "openssh-client")
version = ("ssh", "-V")


def start(world, upstream):
    inner = [
        "ssh -F none -q -T -i",
        world.folder / "router-user",
        "-o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=yes -o UpdateHostKeys=no",
        f"-o UserKnownHostsFile={world.folder / 'known_hosts'} -o GlobalKnownHostsFile=none",
        f"-p {upstream.port} {world.login}@127.0.0.1 -s sftp",
    ]
    lines = [
        f"HostKey {world.folder / 'front-host'}",
        f"AuthorizedKeysFile {world.folder / 'client_keys'}",
        f"ForceCommand {' '.join(map(str, inner))}",
        # Never served, since the command above is forced; sshd wants the subsystem to have a name.
        "Subsystem sftp internal-sftp",
        "DisableForwarding yes",
        "PermitTTY no",
    ]
    server, port = world.sshd(name, lines)
    return Running(server, port, world.login)
