//! What the definition of the command line does not say.

/// A name and what it means.
pub(super) type Item = (&'static str, &'static str);

/// When the words here were last changed.
pub(super) const DATE: &str = "2026-11-26";

/// What the configuration file is.
pub(super) const FILE: &[&str] = &[
    "A file of TOML with what hairpin serve is told. Keys stand one beside the other, without sections. Every key is also a \
     flag of hairpin-serve(1), such as --relay-ports, and a variable of the environment, such as HAIRPIN_RELAY_PORTS: flags \
     win over variables, variables over the file.",
    "All that is wrong with it is told at once, with file and line. hairpin check says what it would do on this host, hairpin \
     reload puts it in force. A reload follows the keys that are marked as live below; the others wait for the next start.",
    "Keep secrets out of it: user-file, auth-secret-file, admin-token-file and their like name files of their own, with one \
     value a line, that nobody else may read.",
];

/// What there is to say of a command besides what its help begins with, in paragraphs.
pub(super) fn description(page: &str) -> &'static [&'static str] {
    match page {
        "hairpin" => &[
            "Hairpin is a TURN server (RFC 8656) for clients that a NAT keeps apart, such as those of WebRTC. Its daemon \
             authenticates clients and makes allocations; what they send is forwarded by an XDP program in the network driver, \
             or in userspace where that cannot be had. It is also a way to have media sessions of two legs, ICE-lite or plain \
             RTP, without a TURN client.",
            "hairpin serve runs the relay. hairpin check says before whether it would start. The commands from status on ask \
             the running relay by its admin socket. load and echo-peer measure any TURN server.",
        ],
        "hairpin-serve" => &[
            "Without options the relay listens on UDP and TCP port 3478 of every address and relays from the addresses that \
             this host reaches the Internet from. It is never an open relay: with neither a user nor a secret it makes a secret \
             of its own, and prints a username and a password to try it with.",
            "Each option can be given on the command line, in the environment, or in a file; the first of these that says \
             something of it holds. All that is wrong is told at once, one line each, and nothing is started.",
            "Forwarding in the kernel takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or root; ports below 1024 take \
             CAP_NET_BIND_SERVICE. hairpin.service of the Debian package runs the relay with these and nothing else.",
        ],
        "hairpin-reload" => &[
            "Calls go on. What the new configuration forbids ends at once, in the kernel, too. What is removed and in use \
             takes nobody else, and stays for those who use it unless --force is given. hairpin.toml(5) says which keys wait \
             for the next start.",
        ],
        "hairpin-check" => &[
            "It looks at configuration, kernel, interfaces, addresses, ports, certificates, limits and firewall of this host, \
             as the user that runs it, and sends no packet but to user stores. Each finding comes with what to do about it.",
        ],
        _ => &[],
    }
}

/// Files of the relay.
pub(super) const FILES: &[Item] = &[
    ("/etc/hairpin/hairpin.toml", "The configuration, unless --config names another file; see hairpin.toml(5)."),
    (
        "/run/hairpin/admin.sock",
        "The socket of the admin interface. Whoever may connect to it may do everything to the relay: root, and in the \
         Debian package members of the group hairpin.",
    ),
    (
        "/var/lib/hairpin/auth-secret",
        "The secret that was made at the first start, if neither a user nor a secret is configured.",
    ),
];

const SIGNALS: &[Item] = &[
    ("SIGHUP", "Read the configuration again. A bad one changes nothing, and the log says why."),
    ("SIGTERM, SIGINT", "End. With --drain-timeout, drain for so long before; a second signal ends it at once."),
    (
        "SIGUSR1",
        "Drain without a deadline: no new clients; those that are there stay, or leave for other relays with --drain-move.",
    ),
    ("SIGUSR2", "End a drain: new clients are welcome again."),
];

const ENVIRONMENT_OF_SERVE: &[Item] = &[
    (
        "HAIRPIN_...",
        "Every option is a variable, too: HAIRPIN_RELAY_PORTS for --relay-ports. Flags win over variables.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Where a service manager is told that the relay is ready, how it is, that it reloads and ends, and, twice in this \
         time at least, that all of its shards answer.",
    ),
    (
        "LISTEN_FDS, LISTEN_FDNAMES",
        "Sockets that a service manager has opened. Those named admin, one of Unix and one of TCP at most, are taken in place \
         of --admin-socket and --admin. Sockets for clients are not: each shard has its own for every address, and the kernel \
         lets only one user share a port like that.",
    ),
    ("STATE_DIRECTORY, RUNTIME_DIRECTORY", "Where state and the admin socket are in a service of systemd."),
];

const STATUS: &[Item] = &[
    ("0", "It is done."),
    ("1", "It failed; one line on standard error says why."),
    ("2", "The command line or the configuration is wrong."),
];

const STATUS_OF_SERVE: &[Item] = &[
    ("0", "It was told to end, or a drain was over that ends it."),
    (
        "1",
        "It could not start, or a thread has stopped that should not have; the last line on standard error says why.",
    ),
    ("2", "The command line or the configuration is wrong: one line on standard error for each problem."),
];

const STATUS_OF_CHECK: &[Item] =
    &[("0", "The relay would start."), ("1", "The relay would not start."), ("2", "The configuration is wrong.")];

/// The sections of a page that are its own.
pub(super) fn of(page: &str) -> Vec<(&'static str, &'static [Item])> {
    match page {
        "hairpin" => vec![("FILES", FILES), ("EXIT STATUS", STATUS)],
        "hairpin-serve" => vec![
            ("ENVIRONMENT", ENVIRONMENT_OF_SERVE),
            ("FILES", FILES),
            ("SIGNALS", SIGNALS),
            ("EXIT STATUS", STATUS_OF_SERVE),
        ],
        "hairpin-check" => vec![("EXIT STATUS", STATUS_OF_CHECK)],
        _ => vec![("EXIT STATUS", STATUS)],
    }
}

/// Other pages that a reader of this one may want, besides those of the commands above it.
pub(super) fn see_also(page: &str) -> &'static [&'static str] {
    match page {
        "hairpin" => &["hairpin-serve(1)", "hairpin-check(1)", "hairpin-status(1)", "hairpin.toml(5)"],
        "hairpin-serve" => {
            &["hairpin-check(1)", "hairpin-drain(1)", "hairpin-reload(1)", "hairpin.toml(5)", "systemd.service(5)"]
        }
        "hairpin-check" | "hairpin-config" | "hairpin-reload" => &["hairpin-serve(1)", "hairpin.toml(5)"],
        "hairpin-load" => &["hairpin-echo-peer(1)"],
        "hairpin-echo-peer" => &["hairpin-load(1)"],
        _ => &["hairpin-serve(1)"],
    }
}
