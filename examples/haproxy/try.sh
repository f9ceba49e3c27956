#!/bin/bash
# Two routers on one Redis behind a HAProxy, all on this machine and thrown away afterwards.
#
#   examples/haproxy/try.sh           brings it up, says how to get in, goes on until Ctrl-C
#   examples/haproxy/try.sh --check   moves a file through each node, kills one while a session runs on the other; exit code 0 = it works
#
# The program is $SFTPPROXY, or the one that was built last. Needs haproxy, redis-server and OpenSSH.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

check=''
case ${1-} in
    --check) check=yes ;;
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    '') ;;
    *) fail "unknown option $1; see --help" ;;
esac

newest() { find "$top"/target/{debug,release} -maxdepth 1 -name sftpproxy -printf "%T@ %p\n" 2>/dev/null | sort -rn | head -n 1 | cut -d" " -f2-; }
program=${SFTPPROXY:-$(newest)}
[ -x "$program" ] || fail "there is no program: cargo build, or name it in SFTPPROXY"
for package in haproxy redis-server openssh-client openssh-server; do
    have "$package" || fail "$package is not installed"
done

umask 077
state=$(mktemp -d)
session=''
stop_all() {
    [ -z "$session" ] || kill "$session" 2>/dev/null || true
    for name in balancer node1 node2 sshd redis; do stop_detached $name; done
    rm -rf "$state"
}
trap stop_all EXIT
trap 'exit 0' INT TERM

# A port that nobody listens on at this moment.
free_port() {
    local port
    while port=$((10000 + RANDOM % 20000)); (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

key() { ssh-keygen -q -t ed25519 -N '' -C "$1@example" -f "$state/$1"; }

logged() { grep -q "$2" "$state/$1.log" 2>/dev/null; }

# The same settings for both nodes: one Redis, one host key, one key towards upstreams. Each has its ports and its name.
settings() {
    cat <<END
SFTPPROXY_REDIS_PORT=$redis_port
SFTPPROXY_PRIVATEKEY_PATH=$state/host
SFTPPROXY_UPSTREAM_KEY_PATH=$state/router
SFTPPROXY_PROXY_FROM=127.0.0.1
SFTPPROXY_ADDRESS=127.0.0.1
SFTPPROXY_PORT=$2
SFTPPROXY_METRICS_ADDRESS=127.0.0.1:$3
SFTPPROXY_NODE=$1
END
}

node() {
    local set
    mkdir -p "$state/$1"
    mapfile -t set < <(settings "$@")
    # The folder stands in the command line, by which stop_detached knows its own.
    start_detached "$1" env -i PATH="$PATH" HOME="$HOME" "${set[@]}" "$program" --state-dir "$state/$1"
    await 30 logged "$1" "listening on" || fail "$1 does not start: $(tail -n 3 "$state/$1.log")"
}

for name in alice host router upstream; do key $name; done
read -r redis_port sshd_port door one two one_metrics two_metrics < <(for _ in {1..7}; do free_port; done | xargs)

start_detached redis redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --appendonly no --dir "$state/" --set-proc-title no
await 30 logged redis "Ready to accept connections" || fail "redis-server does not start: $(tail -n 3 "$state/redis.log")"
cp "$state/router.pub" "$state/authorized_keys"
throwaway_sshd "$state/upstream" "$state/authorized_keys" >"$state/sshd_config"
start_detached sshd /usr/sbin/sshd -D -e -f "$state/sshd_config" -p "$sshd_port"
await 30 logged sshd "Server listening" || fail "the sshd does not start: $(tail -n 3 "$state/sshd.log")"
mkdir "$state/files"

node node1 "$one" "$one_metrics"
node node2 "$two" "$two_metrics"
SFTP_BIND=127.0.0.1:$door NODE1=127.0.0.1:$one NODE1_METRICS=$one_metrics NODE2=127.0.0.1:$two NODE2_METRICS=$two_metrics \
    start_detached balancer "$(PATH=$PATH:/usr/sbin command -v haproxy)" -db -f "$here/haproxy.cfg" -p "$state/haproxy.id"

# Any node's settings do for the commands: what they write is in Redis.
mapfile -t set < <(settings node1 "$one" "$one_metrics")
env -i PATH="$PATH" HOME="$HOME" "${set[@]}" "$program" --state-dir "$state/node1" user add alice --key "$state/alice.pub" --remote 127.0.0.1 --port "$sshd_port" \
    --user "$(id -un)" --home "$state/files" --host-key "$(cut -d' ' -f1,2 "$state/upstream.pub")" --yes >/dev/null
echo "[127.0.0.1]:$door $(cut -d' ' -f1,2 "$state/host.pub")" >"$state/known_hosts"

options=(-P "$door" -i "$state/alice" -F none -o BatchMode=yes -o IdentitiesOnly=yes -o "UserKnownHostsFile=$state/known_hosts" -o ConnectTimeout=20)
batch() { sftp -q "${options[@]}" -b - alice@127.0.0.1 >"$state/sftp.log" 2>&1; }
gets_in() { echo pwd | batch; }
await 30 gets_in || fail "nobody gets in: $(tail -n 3 "$state/sftp.log"); node1 says: $(tail -n 3 "$state/node1.log")"

if [ -z "$check" ]; then
    say "two nodes at ports $one and $two, HAProxy before them at $door. Try:"
    echo "    sftp ${options[*]} alice@127.0.0.1"
    echo "    kill -KILL \$(cat $state/node1.pid)     (a node dies)"
    while sleep 3600; do :; done
fi

# A file there and back.
moves() {
    head -c 2000000 /dev/urandom >"$state/sent"
    rm -f "$state/received"
    printf '%s\n' "put $state/sent file" "get file $state/received" | batch && cmp -s "$state/sent" "$state/received"
}

# Sessions that a node has had from the balancer, with the client's own address.
through() { grep -c 'proxied session=' "$state/$1.log" || true; }
moves_through() {
    local before
    before=$(through "$1")
    moves || fail "a file does not get through: $(tail -n 3 "$state/sftp.log")"
    [ "$(through "$1")" -gt "$before" ]
}
for name in node1 node2; do
    await 60 moves_through $name || fail "HAProxy sends nobody to $name: $(tail -n 5 "$state/balancer.log")"
    say "a file went through $name and back"
done

# A session that goes on while the other node dies.
open_on() { echo $(($(grep -c ' open session=' "$state/$1.log") - $(grep -c 'end session=.*user="alice"' "$state/$1.log"))); }
open_are() { [ "$(open_on node1) $(open_on node2)" = "$1" ]; }
open_somewhere() { open_are "1 0" || open_are "0 1"; }
await 30 open_are "0 0" || fail "sessions do not end"
mkfifo "$state/commands"
sftp -q "${options[@]}" alice@127.0.0.1 <"$state/commands" >"$state/session.log" 2>&1 &
session=$!
exec 7>"$state/commands"
await 30 open_somewhere || fail "no session begins: $(cat "$state/session.log")"
if open_are "1 0"; then lives=node1 dies=node2; else lives=node2 dies=node1; fi
kill -KILL "$(cat "$state/$dies.pid")"
await 10 gone $dies || fail "$dies survives SIGKILL"
for _ in {1..4}; do
    moves || fail "after the death of $dies a file does not get through: $(tail -n 3 "$state/sftp.log"); HAProxy says: $(tail -n 5 "$state/balancer.log")"
done
say "$dies is dead; 4 new connections in a row went to $lives"
echo "put $state/sent late" >&7
exec 7>&-
wait "$session" || fail "the session on $lives did not go on: $(cat "$state/session.log")"
session=''
cmp -s "$state/sent" "$state/files/late" || fail "the session on $lives lost a file"
say "the session on $lives went on"

if [ $dies = node1 ]; then node node1 "$one" "$one_metrics"; else node node2 "$two" "$two_metrics"; fi
await 60 moves_through $dies || fail "$dies is back and gets nobody"
say "$dies is back and gets connections"
