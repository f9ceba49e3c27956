# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sftpproxy_global_optspecs
    string join \n address= port= state-dir= privatekey-path= publickey-path= userid= groupid= home= client-user= routes-file= redis-host= redis-port= redis-db= redis-password= redis-url= redis-password-file= redis-url-file= redis-prefix= redis-connect-timeout= redis-command-timeout= redis-pool-size= store-grace= upstream-key-path= upstream-keys-dir= secret-key-file= known-hosts= upstream-connect-timeout= upstream-exchange-timeout= upstream-login-timeout= upstream-library= upstream-reuse= upstream-proxy-protocol= upstream-ciphers= upstream-macs= upstream-kex= upstream-hostkey-algorithms= sandbox= login-timeout= drain-timeout= hand-over-timeout= idle-timeout= stall-timeout= keepalive= max-sessions= max-startups= max-source-sessions= max-source-startups= max-user-sessions= source-blocks= allow-from= deny-from= proxy-from= penalties= penalty-exempt= max-offered-keys= banner= ciphers= macs= kex= hostkey-algorithms= pubkey-algorithms= rsa-min-size= log= log-file= log-file-size= log-file-count= metrics-address= metrics-token= metrics-token-file= metrics-users= audit= audit-file-size= audit-file-count= audit-redis-length= hook= hook-file= hook-events= hook-timeout= hook-attempts= hook-parallel= control-socket= take-over= control-mode= node= node-interval= h/help V/version
end

function __fish_sftpproxy_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sftpproxy_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sftpproxy_using_subcommand
    set -l cmd (__fish_sftpproxy_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l address -d 'Addresses to listen on; empty = all, IPv4 and IPv6.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l port -d 'Port to listen on; 0 = any free one, which the log names. [default: 5022]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l state-dir -d 'Where host keys are made and kept; empty = $STATE_DIRECTORY, /var/lib/sftpproxy for root, else ~/.local/state/sftpproxy.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l privatekey-path -d 'Host keys shown to clients, one of each type; empty = made in the state directory at first start.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l publickey-path -d 'Public half of the first host key; only compared with it.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l userid -d 'User (number or name) to become after the port is bound and the host keys are read, when started as root.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l groupid -d 'Group (number or name) to become likewise; empty = the user\'s own.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l home -d 'Start directory of a user whose record has no home; empty = what the upstream says.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l client-user -d 'Login at the upstream when the record has no user; empty = the user\'s own name.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l routes-file -d 'Routes in this TOML file instead of Redis.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-host -d 'Redis server. [default: localhost]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-port -d 'Its port. [default: 6379]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-db -d 'Its database. [default: 1]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-password -d 'Its password; empty = none.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-url -d 'Redis as a URL instead of the four above: redis://, rediss:// (TLS), redis+unix:///path?db=1; with USER:PASSWORD@ (socket: ?user=…&pass=…) for an ACL user; redis+sentinel://HOST:PORT,…/SERVICE/1 or redis+cluster://HOST:PORT,… for several servers.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-password-file -d 'File with the password instead, on one line, readable by nobody else.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-url-file -d 'File with the URL instead, likewise.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-prefix -d 'What all keys in Redis begin with. [default: pysftpproxy:]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-connect-timeout -d 'Time limit for a connection to Redis. [default: 2]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-command-timeout -d 'Time limit for an answer of Redis. [default: 2]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l redis-pool-size -d 'Connections to Redis at most. [default: 8]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l store-grace -d 'How long after it was seen in Redis the route of a user who has logged in is good for new logins while Redis does not answer; 0 = not at all. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-key-path -d 'Private key for upstreams when the record has none; empty = ssh-agent, then ~/.ssh/id_ed25519, id_ecdsa, id_rsa.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-keys-dir -d 'Where a record\'s key that is not an absolute path is looked for; empty = keys in the state directory.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l secret-key-file -d 'File with the secret key (base64 of 32 bytes) that encrypts upstreams\' keys in the store; empty = the systemd credential secret-key, if there is one.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l known-hosts -d 'Host keys of upstreams without a pin; empty = ~/.ssh/known_hosts.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-connect-timeout -d 'Time limit for the TCP connection to one address of an upstream. [default: 10]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-exchange-timeout -d 'Time limit for the SSH key exchange with an upstream. [default: 10]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-login-timeout -d 'Time limit for login and opening of sftp at an upstream. [default: 15]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-library -d 'Library that speaks SSH with upstreams; libssh needs less CPU time. [default: ssh2]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-reuse -d 'How long a user\'s connection to the upstream is kept for the same user\'s next session; 0 = not at all. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-proxy-protocol -d 'v2: begin connections to upstreams with a PROXY header that has the client\'s address, where the record does not say otherwise. [default: no]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-ciphers -d 'Ciphers towards upstreams, preferred first; empty = those that cost the library least.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-macs -d 'MACs towards upstreams; empty = the library\'s list.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-kex -d 'Key exchange towards upstreams; empty = the library\'s list.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l upstream-hostkey-algorithms -d 'Host key algorithms towards upstreams, behind those of pinned keys; empty = Ed25519, ECDSA, RSA with SHA-2.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l sandbox -d 'Whether the process shuts itself in: no core file, nobody but root may look into it, and with Landlock and seccomp it writes in its own folders only and starts no program. [default: yes]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l login-timeout -d 'Time limit from accept to the open upstream channel, and later for a key exchange that a peer begins. [default: 60]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l drain-timeout -d 'How long sessions may go on after the first SIGTERM or SIGINT. [default: 30]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hand-over-timeout -d 'How long sessions may go on after another router has taken over; 0 = until they end by themselves. [default: 86400]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l idle-timeout -d 'A session without a request for so long is ended, unless one has yet to be answered; 0 = never. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l stall-timeout -d 'A session is ended when a side takes none of the bytes that wait for it, or the upstream answers no request, for so long; 0 = never. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l keepalive -d 'How long a peer may be gone without a word, on either side, before TCP finds out. [default: 180]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l max-sessions -d 'Connections at the same time. [default: 1000]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l max-startups -d 'Connections at the same time that have not yet proven a key; 10:30:100 = from 10 on 30 % are refused by chance, all from 100 on. [default: 300]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l max-source-sessions -d 'Connections at the same time from one source; 0 = no limit of its own. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l max-source-startups -d 'Those of one source that have not yet proven a key; 0 = no limit of its own. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l max-user-sessions -d 'Sessions at the same time of a user whose record has no max_sessions; 0 = no limit. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l source-blocks -d 'Length of the prefix, of IPv4 and IPv6, within which addresses are one source. [default: 32:64]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l allow-from -d 'Nobody from elsewhere is let in; empty = everybody may come.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l deny-from -d 'Nobody from there is let in, even if allowed.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l proxy-from -d 'Balancers whose connections begin with a PROXY header, version 1 or 2, which says where the client is; others\' headers refuse.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l penalties -d 'What a source owes for each fault; it is refused once that adds up to min. As sshd\'s PerSourcePenalties. [default: authfail:5s noauth:1s grace-exceeded:10s min:15s max:10m]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l penalty-exempt -d 'Whose faults cost nothing: by default loopback and private networks, where many users may be behind one address. [default: 127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l max-offered-keys -d 'Keys that a client may offer before it is disconnected. [default: 20]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l banner -d 'Text shown to clients before they log in.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l ciphers -d 'Ciphers towards clients. [default: chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l macs -d 'MACs towards clients, for ciphers that need one. [default: hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l kex -d 'Key exchange towards clients; what the installed libssh does not know is left out. [default: mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,diffie-hellman-group14-sha256]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hostkey-algorithms -d 'Signatures of our host keys. [default: ssh-ed25519,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l pubkey-algorithms -d 'Signatures of users\' keys that are accepted. [default: ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,ecdsa-sha2-nistp256,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l rsa-min-size -d 'Smallest RSA key, of hosts and users, towards clients. [default: 2048]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l log -d 'What is logged: error, warn, info, debug, trace, or a filter as env_logger takes it, such as info,sftpproxy::file=off. [default: info]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l log-file -d 'Log to this file, rotated, instead of standard error.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l log-file-size -d 'Size at which the log file is rotated. [default: 10]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l log-file-count -d 'Rotated log files to keep. [default: 5]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l metrics-address -d 'Where metrics, health and a page for people are served over HTTP, such as 127.0.0.1:9922; empty = nowhere.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l metrics-token -d 'What who reads metrics and the page must show, 16 letters and digits or more; must be set if the address is not a loopback one.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l metrics-token-file -d 'File with the token instead, on one line, readable by nobody else.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l metrics-users -d 'Users with series of their own in the metrics at most; 0 = none. [default: 0]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l audit -d 'Where each event goes as a line of JSON: file:/PATH, stdout, journald, redis:STREAM; empty = nowhere.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l audit-file-size -d 'Size at which the audit file is rotated; 0 = never, for who rotates it and sends SIGUSR1. [default: 100]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l audit-file-count -d 'Rotated audit files to keep. [default: 10]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l audit-redis-length -d 'Entries that the Redis stream keeps, about. [default: 100000]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hook -d 'Program to run, or http:// or https:// address to POST to, for events; empty = none.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hook-file -d 'File with the hook\'s address instead, on one line, readable by nobody else.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hook-events -d 'Which kinds of events the hook is for; all = all. [default: upload-complete]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hook-timeout -d 'Time limit of one call of the hook. [default: 10]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hook-attempts -d 'How often the hook is called for an event that it does not take, after 1, 2, 4 … 60 seconds. [default: 8]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l hook-parallel -d 'Calls of the hook at the same time; 1 = one after the other, in order. [default: 4]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l control-socket -d 'Unix socket for the commands sessions and top; empty = control.sock in $RUNTIME_DIRECTORY, else in the state directory; none = no socket.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l take-over -d 'yes: take the listening sockets over from the router that answers at the control socket, which then finishes its sessions; where none answers, start as usual. [default: no]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l control-mode -d 'Mode of the control socket: who may see and end sessions. [default: 0600]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l node -d 'Name of this router among those at the same Redis; empty = host name and process id.' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -l node-interval -d 'How often sessions are written to Redis for other nodes\' commands; 0 = not at all. [default: 3]' -r
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -s V -l version -d 'Print version'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "serve" -d 'Serve (the default)'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "reload" -d 'Start a router with the settings and the program as they are now, and let it take over from the one that runs'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "check-config" -d 'Check the settings and the files they name, without starting'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "user" -d 'Add, list, show and remove users and their routes'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "key" -d 'Add, list and remove users\' public keys'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "host-key" -d 'Look at, approve and remove host keys of upstreams'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "upstream-key" -d 'Make, list and rotate the keys with which the router logs in at upstreams'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "ban" -d 'Refuse connections from networks, and let them in again'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "sessions" -d 'See and end the sessions that run, on all nodes'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "maintenance" -d 'Let nobody in, or not one user, and tell them why'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "top" -d 'Watch transfers: file, progress, rate, time left, who is slow'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "explain" -d 'Walk a user\'s login without logging in, and say what is read, what it means and what to do'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "doctor" -d 'Ask every upstream whether its routes work, and find dead entries of the store'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "report" -d 'Say what users and their clients still use'
complete -c sftpproxy -n "__fish_sftpproxy_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand serve" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand reload" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand check-config" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and not __fish_seen_subcommand_from add list show remove help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and not __fish_seen_subcommand_from add list show remove help" -f -a "add" -d 'Add a user with a route and keys, or change one with --update'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and not __fish_seen_subcommand_from add list show remove help" -f -a "list" -d 'List users and their routes'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and not __fish_seen_subcommand_from add list show remove help" -f -a "show" -d 'Show a user\'s record, route and keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and not __fish_seen_subcommand_from add list show remove help" -f -a "remove" -d 'Remove a user, record and keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and not __fish_seen_subcommand_from add list show remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l key -d 'File with the user\'s public key lines, such as id_ed25519.pub; - for standard input; may be repeated' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l remote -d 'Host name or address of the user\'s sshd; unset = localhost' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l port -d 'Its port; unset = 22' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l user -d 'The login there; unset = SFTPPROXY_CLIENT_USER, else the user\'s name' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l home -d 'Start directory; unset = SFTPPROXY_HOME, else what the upstream says' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l from -d 'Where the user may log in from, such as \'192.0.2.0/24, 2001:db8::/32\'; unset = everywhere' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l max-sessions -d 'Sessions of the user at the same time; unset = SFTPPROXY_MAX_USER_SESSIONS' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l upload-limit -d 'How fast the user\'s uploads may be, in KiB a second; unset = no limit' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l download-limit -d 'The same of downloads' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l survive -d 'How long a lost upstream is tried again before the session ends, 1 to 600; unset = not at all' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l upstream-key -d 'Private key for this upstream, or agent; relative = in SFTPPROXY_UPSTREAM_KEYS_DIR; see upstream-key new' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l proxy-protocol -d 'v2: tell the upstream the client\'s address in a PROXY header' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l hash -d 'Digest of transfers for the audit: sha256 or blake3; unset = none' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l read-only -d 'yes: list and read, change nothing' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l upload-only -d 'yes: a drop box, new files and directories only' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l root -d 'Directory of the upstream that the user sees as /' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l rules -d 'What is allowed where, such as \'/in=create,list; /out=read,list\'' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l allow -d 'Patterns of file names that may be used, such as \'*.csv, report-?\'' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l deny -d 'Patterns of names that may not be used, such as \'.*, *.exe\'' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l max-file-size -d 'Largest file in bytes, or with K, M, G, T' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l extensions -d 'SFTP extensions that may be used, such as \'posix-rename, fsync\'; none' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l host-key -d 'Host key of the upstream: SHA256:… or a public key line; may be repeated; unset = known_hosts decides' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l scan-host-key -d 'Look at the upstream\'s host keys, show them and pin them'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -l update -d 'Change a user who is there; \'\' unsets a field'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -s y -l yes -d 'Pin scanned host keys without a question'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from remove" -s y -l yes -d 'Remove without a question'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a user with a route and keys, or change one with --update'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "list" -d 'List users and their routes'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show a user\'s record, route and keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove a user, record and keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and not __fish_seen_subcommand_from add list remove help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and not __fish_seen_subcommand_from add list remove help" -f -a "add" -d 'Give a user more public keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and not __fish_seen_subcommand_from add list remove help" -f -a "list" -d 'List keys; what nobody can log in with is marked DEAD'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and not __fish_seen_subcommand_from add list remove help" -f -a "remove" -d 'Remove keys of a user; dead entries too'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and not __fish_seen_subcommand_from add list remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from remove" -s y -l yes -d 'Remove without a question'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "add" -d 'Give a user more public keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "list" -d 'List keys; what nobody can log in with is marked DEAD'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove keys of a user; dead entries too'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and not __fish_seen_subcommand_from scan list approve remove help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and not __fish_seen_subcommand_from scan list approve remove help" -f -a "scan" -d 'Print the host keys of an upstream and the lines to pin; compare them with what its own console says'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and not __fish_seen_subcommand_from scan list approve remove help" -f -a "list" -d 'List the approved host keys of all upstreams, by whom they are approved, and which upstreams are quarantined'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and not __fish_seen_subcommand_from scan list approve remove help" -f -a "approve" -d 'Pin the host keys that an upstream shows, or has shown when it was quarantined, for all its users'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and not __fish_seen_subcommand_from scan list approve remove help" -f -a "remove" -d 'Remove the pins of an upstream; pins in users\' records stay'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and not __fish_seen_subcommand_from scan list approve remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from scan" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from scan" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from approve" -l key -d 'Only the key with this fingerprint' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from approve" -l add -d 'Leave the keys that are pinned already in force'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from approve" -s y -l yes -d 'Pin without a question'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from approve" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from remove" -l key -d 'Only the pin of the key with this fingerprint' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from remove" -s y -l yes -d 'Remove without a question'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from help" -f -a "scan" -d 'Print the host keys of an upstream and the lines to pin; compare them with what its own console says'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the approved host keys of all upstreams, by whom they are approved, and which upstreams are quarantined'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from help" -f -a "approve" -d 'Pin the host keys that an upstream shows, or has shown when it was quarantined, for all its users'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove the pins of an upstream; pins in users\' records stay'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand host-key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and not __fish_seen_subcommand_from new list show rotate help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and not __fish_seen_subcommand_from new list show rotate help" -f -a "new" -d 'Make a key and print the line for authorized_keys; until the rotation is finished what was used before is tried after it'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and not __fish_seen_subcommand_from new list show rotate help" -f -a "list" -d 'List with which key the router logs in for whom'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and not __fish_seen_subcommand_from new list show rotate help" -f -a "show" -d 'Show the keys of a user or an upstream, and the lines for authorized_keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and not __fish_seen_subcommand_from new list show rotate help" -f -a "rotate" -d 'Make a new key beside the old one, which is tried after it; --check says which upstreams take which, --finish drops the old one'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and not __fish_seen_subcommand_from new list show rotate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from new" -l host -d 'The upstream instead, for all its users whose records have no key' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from new" -l type -d 'Type of the new key; rsa has 3072 bits' -r -f -a "ed25519\t''
rsa\t''"
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from new" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from new" -l file -d 'Keep the key in a file of SFTPPROXY_UPSTREAM_KEYS_DIR on this machine instead of encrypted in the store'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from show" -l host -d 'The upstream instead, for all its users whose records have no key' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l host -d 'The upstream instead, for all its users whose records have no key' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l type -d 'Type of the new key; rsa has 3072 bits' -r -f -a "ed25519\t''
rsa\t''"
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l file -d 'Keep the key in a file of SFTPPROXY_UPSTREAM_KEYS_DIR on this machine instead of encrypted in the store'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l check -d 'Log in with the new key and with the old one; without USER and --host for every rotation'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l finish -d 'Drop the old key, if every upstream takes the new one'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -l force -d 'Drop it whatever upstreams take'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from help" -f -a "new" -d 'Make a key and print the line for authorized_keys; until the rotation is finished what was used before is tried after it'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from help" -f -a "list" -d 'List with which key the router logs in for whom'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show the keys of a user or an upstream, and the lines for authorized_keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from help" -f -a "rotate" -d 'Make a new key beside the old one, which is tried after it; --check says which upstreams take which, --finish drops the old one'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand upstream-key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and not __fish_seen_subcommand_from add list remove help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and not __fish_seen_subcommand_from add list remove help" -f -a "add" -d 'Refuse connections from a network; sessions that run go on'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and not __fish_seen_subcommand_from add list remove help" -f -a "list" -d 'List the networks that are refused, by operators and for penalties'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and not __fish_seen_subcommand_from add list remove help" -f -a "remove" -d 'Let a network in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and not __fish_seen_subcommand_from add list remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from add" -l for -d '90s, 10m, 12h, 7d; unset = until it is removed' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from add" -l reason -d 'Why, for who lists bans' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from help" -f -a "add" -d 'Refuse connections from a network; sessions that run go on'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the networks that are refused, by operators and for penalties'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Let a network in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand ban; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and not __fish_seen_subcommand_from list show kick help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and not __fish_seen_subcommand_from list show kick help" -f -a "list" -d 'List the sessions that run'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and not __fish_seen_subcommand_from list show kick help" -f -a "show" -d 'Show one session with its open files'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and not __fish_seen_subcommand_from list show kick help" -f -a "kick" -d 'End sessions; their users are shown the reason'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and not __fish_seen_subcommand_from list show kick help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from kick" -l user -d 'All sessions of this user' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from kick" -l reason -d 'Why, for the user and the log; one line' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from kick" -l all -d 'All sessions'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from kick" -s y -l yes -d 'End everybody\'s without a question'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from kick" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from kick" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the sessions that run'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one session with its open files'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from help" -f -a "kick" -d 'End sessions; their users are shown the reason'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand sessions; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and not __fish_seen_subcommand_from on off show help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and not __fish_seen_subcommand_from on off show help" -f -a "on" -d 'Refuse new logins and show users a message; running sessions go on'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and not __fish_seen_subcommand_from on off show help" -f -a "off" -d 'Let users in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and not __fish_seen_subcommand_from on off show help" -f -a "show" -d 'Show who is not let in, and why'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and not __fish_seen_subcommand_from on off show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from on" -l user -d 'Only this user; without it everybody' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from on" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from off" -l user -d 'Only this user; without it everybody' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from off" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from help" -f -a "on" -d 'Refuse new logins and show users a message; running sessions go on'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from help" -f -a "off" -d 'Let users in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show who is not let in, and why'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand maintenance; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand top" -l interval -d 'How often to look, 1 to 60' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand top" -l once -d 'Print one table and end, as without a terminal'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand top" -l json -d 'Print JSON once, as sessions list does'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand top" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand explain" -l user -d 'The user\'s name, as they give it to ssh' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand explain" -l key -d 'The public key that the user offers, such as id_ed25519.pub; unset = those that the store has' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand explain" -l fingerprint -d 'The same by its fingerprint, as logs have it' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand explain" -l from -d 'The address that the user comes from' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand explain" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand explain" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand doctor" -l parallel -d 'Routes at the same time, 1 to 256 [default: 16]' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand doctor" -l per-address -d 'The same at one address, 1 to 64 [default: 4]' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand doctor" -l timeout -d 'How long one route may take, 1 to 600 [default: 20]' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand doctor" -l write -d 'Also make a file with a random name in the start directory and remove it'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand doctor" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and not __fish_seen_subcommand_from algorithms help" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and not __fish_seen_subcommand_from algorithms help" -f -a "algorithms" -d 'Who still negotiates what: from the audit\'s files, and the types and sizes of stored keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and not __fish_seen_subcommand_from algorithms help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and __fish_seen_subcommand_from algorithms" -l since -d 'Only logins from then on, such as 2026-11-01' -r
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and __fish_seen_subcommand_from algorithms" -l from-store -d 'Only the stored keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and __fish_seen_subcommand_from algorithms" -l json -d 'Print JSON'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and __fish_seen_subcommand_from algorithms" -s h -l help -d 'Print help'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and __fish_seen_subcommand_from help" -f -a "algorithms" -d 'Who still negotiates what: from the audit\'s files, and the types and sizes of stored keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand report; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "serve" -d 'Serve (the default)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "reload" -d 'Start a router with the settings and the program as they are now, and let it take over from the one that runs'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "check-config" -d 'Check the settings and the files they name, without starting'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "user" -d 'Add, list, show and remove users and their routes'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "key" -d 'Add, list and remove users\' public keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "host-key" -d 'Look at, approve and remove host keys of upstreams'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "upstream-key" -d 'Make, list and rotate the keys with which the router logs in at upstreams'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "ban" -d 'Refuse connections from networks, and let them in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "sessions" -d 'See and end the sessions that run, on all nodes'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "maintenance" -d 'Let nobody in, or not one user, and tell them why'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "top" -d 'Watch transfers: file, progress, rate, time left, who is slow'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "explain" -d 'Walk a user\'s login without logging in, and say what is read, what it means and what to do'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "doctor" -d 'Ask every upstream whether its routes work, and find dead entries of the store'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "report" -d 'Say what users and their clients still use'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and not __fish_seen_subcommand_from serve reload check-config user key host-key upstream-key ban sessions maintenance top explain doctor report help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "add" -d 'Add a user with a route and keys, or change one with --update'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "list" -d 'List users and their routes'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "show" -d 'Show a user\'s record, route and keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "remove" -d 'Remove a user, record and keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "add" -d 'Give a user more public keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "list" -d 'List keys; what nobody can log in with is marked DEAD'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "remove" -d 'Remove keys of a user; dead entries too'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from host-key" -f -a "scan" -d 'Print the host keys of an upstream and the lines to pin; compare them with what its own console says'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from host-key" -f -a "list" -d 'List the approved host keys of all upstreams, by whom they are approved, and which upstreams are quarantined'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from host-key" -f -a "approve" -d 'Pin the host keys that an upstream shows, or has shown when it was quarantined, for all its users'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from host-key" -f -a "remove" -d 'Remove the pins of an upstream; pins in users\' records stay'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from upstream-key" -f -a "new" -d 'Make a key and print the line for authorized_keys; until the rotation is finished what was used before is tried after it'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from upstream-key" -f -a "list" -d 'List with which key the router logs in for whom'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from upstream-key" -f -a "show" -d 'Show the keys of a user or an upstream, and the lines for authorized_keys'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from upstream-key" -f -a "rotate" -d 'Make a new key beside the old one, which is tried after it; --check says which upstreams take which, --finish drops the old one'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from ban" -f -a "add" -d 'Refuse connections from a network; sessions that run go on'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from ban" -f -a "list" -d 'List the networks that are refused, by operators and for penalties'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from ban" -f -a "remove" -d 'Let a network in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from sessions" -f -a "list" -d 'List the sessions that run'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from sessions" -f -a "show" -d 'Show one session with its open files'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from sessions" -f -a "kick" -d 'End sessions; their users are shown the reason'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from maintenance" -f -a "on" -d 'Refuse new logins and show users a message; running sessions go on'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from maintenance" -f -a "off" -d 'Let users in again'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from maintenance" -f -a "show" -d 'Show who is not let in, and why'
complete -c sftpproxy -n "__fish_sftpproxy_using_subcommand help; and __fish_seen_subcommand_from report" -f -a "algorithms" -d 'Who still negotiates what: from the audit\'s files, and the types and sizes of stored keys'
