# Settings of sftpproxy, all of them, each with its default. For a shell:
#
#     source properties.sh && sftpproxy
#
# Change what you want otherwise, or keep only those lines: an empty value and a missing line both mean the default. Each setting is
# also an option: SFTPPROXY_REDIS_HOST is `sftpproxy --redis-host …`, and the option wins. Values stand in single quotes, so that a
# password may have any character but that quote. `sftpproxy check-config` tells what is wrong with them without starting.
#
# The systemd service reads another file: /etc/sftpproxy/sftpproxy.env (scripts/install) or /etc/default/sftpproxy (Debian package).

# Addresses to listen on; empty = all, IPv4 and IPv6.
# Value: IP[,IP…]
export SFTPPROXY_ADDRESS=''

# Port to listen on; 0 = any free one, which the log names.
# Value: PORT
export SFTPPROXY_PORT='5022'

# Where host keys are made and kept; empty = $STATE_DIRECTORY, /var/lib/sftpproxy for root, else ~/.local/state/sftpproxy.
# Value: DIR
export SFTPPROXY_STATE_DIR=''

# Host keys shown to clients, one of each type; empty = made in the state directory at first start.
# Value: FILE[,FILE…]
export SFTPPROXY_PRIVATEKEY_PATH=''

# Public half of the first host key; only compared with it.
# Value: FILE
export SFTPPROXY_PUBLICKEY_PATH=''

# User (number or name) to become after the port is bound and the host keys are read, when started as root.
# Value: UID
export SFTPPROXY_USERID=''

# Group (number or name) to become likewise; empty = the user's own.
# Value: GID
export SFTPPROXY_GROUPID=''

# Start directory of a user whose record has no home; empty = what the upstream says.
# Value: PATH
export SFTPPROXY_HOME=''

# Login at the upstream when the record has no user; empty = the user's own name.
# Value: NAME
export SFTPPROXY_CLIENT_USER=''

# Routes in this TOML file instead of Redis.
# Value: FILE
export SFTPPROXY_ROUTES_FILE=''

# Redis server.
# Value: HOST
export SFTPPROXY_REDIS_HOST='localhost'

# Its port.
# Value: PORT
export SFTPPROXY_REDIS_PORT='6379'

# Its database.
# Value: NUMBER
export SFTPPROXY_REDIS_DB='1'

# Its password; empty = none.
# Value: PASSWORD
export SFTPPROXY_REDIS_PASSWORD=''

# Redis as a URL instead of the four above: redis://, rediss:// (TLS), redis+unix:///path?db=1; with USER:PASSWORD@ (socket: ?user=…&pass=…) for an ACL user; redis+sentinel://HOST:PORT,…/SERVICE/1 or redis+cluster://HOST:PORT,… for several servers.
# Value: URL
export SFTPPROXY_REDIS_URL=''

# File with the password instead, on one line, readable by nobody else.
# Value: FILE
export SFTPPROXY_REDIS_PASSWORD_FILE=''

# File with the URL instead, likewise.
# Value: FILE
export SFTPPROXY_REDIS_URL_FILE=''

# What all keys in Redis begin with.
# Value: TEXT
export SFTPPROXY_REDIS_PREFIX='pysftpproxy:'

# Time limit for a connection to Redis.
# Value: SECONDS
export SFTPPROXY_REDIS_CONNECT_TIMEOUT='2'

# Time limit for an answer of Redis.
# Value: SECONDS
export SFTPPROXY_REDIS_COMMAND_TIMEOUT='2'

# Connections to Redis at most.
# Value: NUMBER
export SFTPPROXY_REDIS_POOL_SIZE='8'

# How long after it was seen in Redis the route of a user who has logged in is good for new logins while Redis does not answer; 0 = not at all.
# Value: SECONDS
export SFTPPROXY_STORE_GRACE='0'

# Private key for upstreams when the record has none; empty = ssh-agent, then ~/.ssh/id_ed25519, id_ecdsa, id_rsa.
# Value: FILE
export SFTPPROXY_UPSTREAM_KEY_PATH=''

# Where a record's key that is not an absolute path is looked for; empty = keys in the state directory.
# Value: DIR
export SFTPPROXY_UPSTREAM_KEYS_DIR=''

# File with the secret key (base64 of 32 bytes) that encrypts upstreams' keys in the store; empty = the systemd credential secret-key, if there is one.
# Value: FILE
export SFTPPROXY_SECRET_KEY_FILE=''

# Host keys of upstreams without a pin; empty = ~/.ssh/known_hosts.
# Value: FILE
export SFTPPROXY_KNOWN_HOSTS=''

# Time limit for the TCP connection to one address of an upstream.
# Value: SECONDS
export SFTPPROXY_UPSTREAM_CONNECT_TIMEOUT='10'

# Time limit for the SSH key exchange with an upstream.
# Value: SECONDS
export SFTPPROXY_UPSTREAM_EXCHANGE_TIMEOUT='10'

# Time limit for login and opening of sftp at an upstream.
# Value: SECONDS
export SFTPPROXY_UPSTREAM_LOGIN_TIMEOUT='15'

# Library that speaks SSH with upstreams; libssh needs less CPU time.
# Value: ssh2|libssh
export SFTPPROXY_UPSTREAM_LIBRARY='ssh2'

# How long a user's connection to the upstream is kept for the same user's next session; 0 = not at all.
# Value: SECONDS
export SFTPPROXY_UPSTREAM_REUSE='0'

# v2: begin connections to upstreams with a PROXY header that has the client's address, where the record does not say otherwise.
# Value: no|v2
export SFTPPROXY_UPSTREAM_PROXY_PROTOCOL='no'

# Ciphers towards upstreams, preferred first; empty = those that cost the library least.
# Value: LIST
export SFTPPROXY_UPSTREAM_CIPHERS=''

# MACs towards upstreams; empty = the library's list.
# Value: LIST
export SFTPPROXY_UPSTREAM_MACS=''

# Key exchange towards upstreams; empty = the library's list.
# Value: LIST
export SFTPPROXY_UPSTREAM_KEX=''

# Host key algorithms towards upstreams, behind those of pinned keys; empty = Ed25519, ECDSA, RSA with SHA-2.
# Value: LIST
export SFTPPROXY_UPSTREAM_HOSTKEY_ALGORITHMS=''

# Whether the process shuts itself in: no core file, nobody but root may look into it, and with Landlock and seccomp it writes in its own folders only and starts no program.
# Value: yes|no
export SFTPPROXY_SANDBOX='yes'

# Time limit from accept to the open upstream channel, and later for a key exchange that a peer begins.
# Value: SECONDS
export SFTPPROXY_LOGIN_TIMEOUT='60'

# How long sessions may go on after the first SIGTERM or SIGINT.
# Value: SECONDS
export SFTPPROXY_DRAIN_TIMEOUT='30'

# How long sessions may go on after another router has taken over; 0 = until they end by themselves.
# Value: SECONDS
export SFTPPROXY_HAND_OVER_TIMEOUT='86400'

# A session without a request for so long is ended, unless one has yet to be answered; 0 = never.
# Value: SECONDS
export SFTPPROXY_IDLE_TIMEOUT='0'

# A session is ended when a side takes none of the bytes that wait for it, or the upstream answers no request, for so long; 0 = never.
# Value: SECONDS
export SFTPPROXY_STALL_TIMEOUT='0'

# How long a peer may be gone without a word, on either side, before TCP finds out.
# Value: SECONDS
export SFTPPROXY_KEEPALIVE='180'

# Connections at the same time.
# Value: NUMBER
export SFTPPROXY_MAX_SESSIONS='1000'

# Connections at the same time that have not yet proven a key; 10:30:100 = from 10 on 30 % are refused by chance, all from 100 on.
# Value: NUMBER|START:RATE:FULL
export SFTPPROXY_MAX_STARTUPS='300'

# Connections at the same time from one source; 0 = no limit of its own.
# Value: NUMBER
export SFTPPROXY_MAX_SOURCE_SESSIONS='0'

# Those of one source that have not yet proven a key; 0 = no limit of its own.
# Value: NUMBER
export SFTPPROXY_MAX_SOURCE_STARTUPS='0'

# Sessions at the same time of a user whose record has no max_sessions; 0 = no limit.
# Value: NUMBER
export SFTPPROXY_MAX_USER_SESSIONS='0'

# Length of the prefix, of IPv4 and IPv6, within which addresses are one source.
# Value: BITS:BITS
export SFTPPROXY_SOURCE_BLOCKS='32:64'

# Nobody from elsewhere is let in; empty = everybody may come.
# Value: NETWORK[,NETWORK…]
export SFTPPROXY_ALLOW_FROM=''

# Nobody from there is let in, even if allowed.
# Value: NETWORK[,NETWORK…]
export SFTPPROXY_DENY_FROM=''

# Balancers whose connections begin with a PROXY header, version 1 or 2, which says where the client is; others' headers refuse.
# Value: NETWORK[,NETWORK…]
export SFTPPROXY_PROXY_FROM=''

# What a source owes for each fault; it is refused once that adds up to min. As sshd's PerSourcePenalties.
# Value: off|WORDS
export SFTPPROXY_PENALTIES='authfail:5s noauth:1s grace-exceeded:10s min:15s max:10m'

# Whose faults cost nothing: by default loopback and private networks, where many users may be behind one address.
# Value: none|NETWORK[,NETWORK…]
export SFTPPROXY_PENALTY_EXEMPT='127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10'

# Keys that a client may offer before it is disconnected.
# Value: NUMBER
export SFTPPROXY_MAX_OFFERED_KEYS='20'

# Text shown to clients before they log in.
# Value: FILE
export SFTPPROXY_BANNER=''

# Ciphers towards clients.
# Value: LIST
export SFTPPROXY_CIPHERS='chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr'

# MACs towards clients, for ciphers that need one.
# Value: LIST
export SFTPPROXY_MACS='hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512'

# Key exchange towards clients; what the installed libssh does not know is left out.
# Value: LIST
export SFTPPROXY_KEX='mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,diffie-hellman-group14-sha256'

# Signatures of our host keys.
# Value: LIST
export SFTPPROXY_HOSTKEY_ALGORITHMS='ssh-ed25519,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256'

# Signatures of users' keys that are accepted.
# Value: LIST
export SFTPPROXY_PUBKEY_ALGORITHMS='ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,ecdsa-sha2-nistp256,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256'

# Smallest RSA key, of hosts and users, towards clients.
# Value: BITS
export SFTPPROXY_RSA_MIN_SIZE='2048'

# What is logged: error, warn, info, debug, trace, or a filter as env_logger takes it, such as info,sftpproxy::file=off.
# Value: FILTER
export SFTPPROXY_LOG='info'

# Log to this file, rotated, instead of standard error.
# Value: FILE
export SFTPPROXY_LOG_FILE=''

# Size at which the log file is rotated.
# Value: MIB
export SFTPPROXY_LOG_FILE_SIZE='10'

# Rotated log files to keep.
# Value: NUMBER
export SFTPPROXY_LOG_FILE_COUNT='5'

# Where metrics, health and a page for people are served over HTTP, such as 127.0.0.1:9922; empty = nowhere.
# Value: IP:PORT
export SFTPPROXY_METRICS_ADDRESS=''

# What who reads metrics and the page must show, 16 letters and digits or more; must be set if the address is not a loopback one.
# Value: TOKEN
export SFTPPROXY_METRICS_TOKEN=''

# File with the token instead, on one line, readable by nobody else.
# Value: FILE
export SFTPPROXY_METRICS_TOKEN_FILE=''

# Users with series of their own in the metrics at most; 0 = none.
# Value: NUMBER
export SFTPPROXY_METRICS_USERS='0'

# Where each event goes as a line of JSON: file:/PATH, stdout, journald, redis:STREAM; empty = nowhere.
# Value: SINK[,SINK…]
export SFTPPROXY_AUDIT=''

# Size at which the audit file is rotated; 0 = never, for who rotates it and sends SIGUSR1.
# Value: MIB
export SFTPPROXY_AUDIT_FILE_SIZE='100'

# Rotated audit files to keep.
# Value: NUMBER
export SFTPPROXY_AUDIT_FILE_COUNT='10'

# Entries that the Redis stream keeps, about.
# Value: NUMBER
export SFTPPROXY_AUDIT_REDIS_LENGTH='100000'

# Program to run, or http:// or https:// address to POST to, for events; empty = none.
# Value: COMMAND|URL
export SFTPPROXY_HOOK=''

# File with the hook's address instead, on one line, readable by nobody else.
# Value: FILE
export SFTPPROXY_HOOK_FILE=''

# Which kinds of events the hook is for; all = all.
# Value: KIND[,KIND…]
export SFTPPROXY_HOOK_EVENTS='upload-complete'

# Time limit of one call of the hook.
# Value: SECONDS
export SFTPPROXY_HOOK_TIMEOUT='10'

# How often the hook is called for an event that it does not take, after 1, 2, 4 … 60 seconds.
# Value: NUMBER
export SFTPPROXY_HOOK_ATTEMPTS='8'

# Calls of the hook at the same time; 1 = one after the other, in order.
# Value: NUMBER
export SFTPPROXY_HOOK_PARALLEL='4'

# Unix socket for the commands sessions and top; empty = control.sock in $RUNTIME_DIRECTORY, else in the state directory; none = no socket.
# FILE
export SFTPPROXY_CONTROL_SOCKET=''

# yes: take the listening sockets over from the router that answers at the control socket, which then finishes its sessions; where none answers, start as usual.
# yes|no
export SFTPPROXY_TAKE_OVER='no'

# Mode of the control socket: who may see and end sessions.
# 0600|0660
export SFTPPROXY_CONTROL_MODE='0600'

# Name of this router among those at the same Redis; empty = host name and process id.
# NAME
export SFTPPROXY_NODE=''

# How often sessions are written to Redis for other nodes' commands; 0 = not at all.
# SECONDS
export SFTPPROXY_NODE_INTERVAL='3'
