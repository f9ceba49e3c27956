#!/bin/bash
# Brings the example up and lets two users in. Needs Docker with compose, and alice.pub and bob.pub (the users' public keys) beside this
# file. To be read as much as to be run; running it again changes nothing.
set -euo pipefail
cd "$(dirname "$0")"

# Our commands, with the settings of the running container.
sftpproxy() { docker compose exec -T sftpproxy sftpproxy "$@"; }

# 1. The key with which sftpproxy logs in at the sshds. The private half stays in its volume; the public half is what they let in.
docker compose build
docker compose run --rm -T --no-deps --entrypoint sh sftpproxy -c '
    [ -e /var/lib/sftpproxy/id_ed25519 ] || ssh-keygen -q -t ed25519 -N "" -C sftpproxy -f /var/lib/sftpproxy/id_ed25519
    cat /var/lib/sftpproxy/id_ed25519.pub' >router-user.new
mv router-user.new router-user.pub

# 2. Everything up.
docker compose up --detach --wait

# 3. One route a user: whose key, which sshd. The sshd's host key is looked at once and pinned in the user's record; this network is the
#    Docker host's own, so nobody stands between.
for user in alice bob; do
    sftpproxy user show "$user" >/dev/null 2>&1 ||
        sftpproxy user add "$user" --key - --remote "sshd-$user" --port 22 --user app --home /srv --scan-host-key --yes <"$user.pub"
done

# 4. Who gets where.
sftpproxy user list
