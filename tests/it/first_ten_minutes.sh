#!/bin/bash
# The first ten minutes of somebody who has a sshd, a user with a key, and a router that runs: add, explain, doctor, connect. Run by
# tests/it/first_ten_minutes.rs, in an empty folder, with the router's settings and these in the environment:
#   PROGRAM, ROUTER_PORT, UPSTREAM_PORT, UPSTREAM_LOGIN, UPSTREAM_FILES, UPSTREAM_HOST_KEY (its fingerprint, as the server itself says it)
set -euo pipefail
sftpproxy() { "$PROGRAM" "$@"; }
# expect CODE COMMAND…: the command ends with this exit code; what it says is in ./said.
expect() {
    local code=0
    "${@:2}" >said 2>&1 || code=$?
    [ "$code" = "$1" ] || { echo "exit code $code, not $1: ${*:2}"; cat said; exit 1; }
    echo "\$ ${*:2}"
    cat said
}
# says TEXT: the command before has said it.
says() { grep -qF -- "$1" said || { echo "not said: $1"; exit 1; }; }

ssh-keygen -q -t ed25519 -N '' -C carol@laptop -f carol
ssh-keygen -q -t ed25519 -N '' -C dave@laptop -f dave

# Nobody is let in who has not been added, and explain says why.
expect 3 sftpproxy explain --user carol --key carol.pub

# Add: the upstream's host keys are looked at, shown and pinned. Compare what it shows with what the server itself says.
expect 0 sftpproxy user add carol --key carol.pub --remote 127.0.0.1 --port "$UPSTREAM_PORT" --user "$UPSTREAM_LOGIN" --home "$UPSTREAM_FILES" \
    --scan-host-key --yes
says "$UPSTREAM_HOST_KEY"
expect 0 sftpproxy user show carol
says "$UPSTREAM_HOST_KEY"

# Explain: would she get in, and would somebody with another key?
expect 0 sftpproxy explain --user carol --key carol.pub
expect 3 sftpproxy explain --user carol --key dave.pub
expect 0 sftpproxy explain --user carol --key carol.pub --json
python3 -m json.tool <said >/dev/null

# Doctor: does the route work, as far as the start directory?
expect 0 sftpproxy doctor carol
expect 0 sftpproxy user add carol --update --port 1
expect 3 sftpproxy doctor carol
expect 0 sftpproxy user add carol --update --port "$UPSTREAM_PORT"
expect 0 sftpproxy doctor carol --json
python3 -m json.tool <said >/dev/null

# Connect: the router's host key is learnt once, as a client would.
ssh-keyscan -p "$ROUTER_PORT" -t ed25519 127.0.0.1 >known_hosts 2>/dev/null
connect() {
    sftp -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=known_hosts -i "$1" -P "$ROUTER_PORT" \
        -b batch carol@127.0.0.1
}
echo "it works" >letter
printf 'put letter\npwd\nget letter back\n' >"batch"
expect 0 connect carol
says "$UPSTREAM_FILES"
cmp letter back
cmp letter "$UPSTREAM_FILES/letter"
expect 255 connect dave
says "Permission denied (publickey)"
