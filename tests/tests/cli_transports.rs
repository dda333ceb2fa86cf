//! The command line of transports and extensions: what is refused, in one line that says what is allowed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hairpin_tests::lab::process::{self, Finished, run_for};
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Authority, Certificate, Folder, Key, Namespace, Relay};

/// Commands that are to fail do it at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Values that are wrong whatever else is said, and what is allowed instead.
const VALUES: [(&str, &[&str], &str); 17] = [
    ("--listen", &["sctp:127.0.0.1:3478", "TCP:127.0.0.1:3478", "turn:127.0.0.1:3478"], "udp, tcp, tls and dtls are"),
    ("--listen", &["tcp:", "tcp:3478", "tls:127.0.0.1", "dtls::::1:3478"], "ADDR:PORT is needed, such as"),
    ("--listen", &["tcp:127.0.0.1:0"], "the port must be from 1 to 65535"),
    ("--listen", &["tcp:127.0.0.1:3478=::1", "dtls:[::1]:3478=127.0.0.1"], "of the same IP version"),
    ("--listen", &["tcp:127.0.0.1:3478=0.0.0.0", "tcp:127.0.0.1:3478=224.0.0.1"], "is not the address of one host"),
    ("--proxy-protocol", &["", "10.0.0.0/33", "all", "127.0.0.1:80"], "ADDR/LENGTH is needed, such as 10.0.0.0/8"),
    ("--nat-discovery", &["", "host", "127.0.0.2:70000", "[::1]"], "is not an IP address"),
    ("--nat-discovery", &["0.0.0.0", "::", "224.0.0.1", "127.0.0.2=255.255.255.255"], "is not the address of one host"),
    ("--nat-discovery", &["127.0.0.2:0"], "from 1 to 65535"),
    ("--nat-discovery", &["127.0.0.2=::1"], "of the same IP version"),
    (
        "--alternate-server",
        &["", "other.test:3478", "127.0.0.1", "stun:127.0.0.1:3478"],
        "ADDR:PORT is needed, such as",
    ),
    ("--alternate-server", &["127.0.0.1:0", "turn:127.0.0.1:0"], "the port must be from 1 to 65535"),
    ("--alternate-server", &["0.0.0.0:3478", "turns:[::]:5349"], "give a particular address and port"),
    (
        "--alternate-server",
        &["127.0.0.1:3478=", "127.0.0.1:3478=a b", "turns:127.0.0.1:1=a_b/"],
        "letters, digits, hyphens and dots",
    ),
    ("--max-connections", &["0", "1000001"], "1..=1000000"),
    ("--max-new-connections", &["0", "1000001"], "1..=1000000"),
    ("--max-new-connections-per-source", &["0", "1000001"], "1..=1000000"),
];

/// Options that do not go together, and all that the one line names.
const CONTRADICTIONS: [(&str, &[&str]); 20] = [
    ("--listen tls:127.0.0.1:5349", &["--certificate and --private-key are needed", "--listen tls:127.0.0.1:5349"]),
    ("--listen dtls:127.0.0.1:5349", &["--certificate and --private-key are needed", "--listen dtls:127.0.0.1:5349"]),
    (
        "--listen tls:127.0.0.1:5349 --certificate a",
        &["--certificate and --private-key belong together", "1 of the one and 0 of the other"],
    ),
    (
        "--listen tls:127.0.0.1:5349 --private-key a",
        &["--certificate and --private-key belong together", "0 of the one and 1 of the other"],
    ),
    (
        "--listen tls:127.0.0.1:5349 --certificate a --certificate b --private-key a",
        &["--certificate and --private-key belong together, in the same order", "2 of the one and 1 of the other"],
    ),
    (
        "--listen tcp:127.0.0.1:3478 --certificate a --private-key b",
        &["--certificate needs a --listen tls:ADDR:PORT or dtls:ADDR:PORT"],
    ),
    ("--listen tcp:127.0.0.1:3478 --listen tcp:127.0.0.1:3478", &["--listen tcp:127.0.0.1:3478 is given twice"]),
    (
        "--listen tcp:127.0.0.1:3478 --listen tcp:0.0.0.0:3478",
        &["--listen tcp:127.0.0.1:3478 is already part of --listen tcp:0.0.0.0:3478"],
    ),
    (
        "--listen tcp:127.0.0.1:50000 --relay-ports 50000-50009",
        &["--relay-ports 50000-50009", "port 50000 of --listen"],
    ),
    (
        "--listen 127.0.0.1:3478 --proxy-protocol 10.0.0.0/8",
        &["--proxy-protocol 10.0.0.0/8 needs a --listen tcp:ADDR:PORT or tls:ADDR:PORT"],
    ),
    ("--listen 127.0.0.1:3478 --tcp-relay", &["--tcp-relay needs a --listen tcp:ADDR:PORT or tls:ADDR:PORT"]),
    (
        "--listen tcp:127.0.0.1:3478 --nat-discovery 127.0.0.2",
        &["--nat-discovery 127.0.0.2 needs a --listen udp:ADDR:PORT of the same IP version"],
    ),
    (
        "--listen 127.0.0.1:3478 --nat-discovery ::1",
        &["--nat-discovery ::1 needs a --listen udp:ADDR:PORT of the same IP version"],
    ),
    (
        "--listen 127.0.0.1:3478 --nat-discovery 127.0.0.2:3478",
        &["--nat-discovery 127.0.0.2 needs another port than 3478, such as 127.0.0.2:3479"],
    ),
    ("--listen 127.0.0.1:65535 --relay-ports 1-9 --nat-discovery 127.0.0.2", &["--nat-discovery 127.0.0.2", "65535"]),
    (
        "--listen 127.0.0.1:3478 --nat-discovery 127.0.0.2 --nat-discovery 127.0.0.3",
        &["--nat-discovery 127.0.0.3 is the second", "one of each is allowed"],
    ),
    (
        "--listen 0.0.0.0:3478 --nat-discovery 127.0.0.1",
        &["--nat-discovery 127.0.0.1: the first address", "name it by --listen udp:ADDR:3478"],
    ),
    (
        "--listen 127.0.0.1:3478 --relay-ports 3479-3499 --nat-discovery 127.0.0.2",
        &["--relay-ports 3479-3499 contains port 3479"],
    ),
    (
        "--listen 127.0.0.1:3478=192.0.2.1 --listen tcp:127.0.0.1:3478=192.0.2.2 --relay-address 127.0.0.1=192.0.2.1",
        &["--relay-address, --listen and --nat-discovery", "127.0.0.1", "192.0.2.1", "192.0.2.2", "it can have one"],
    ),
    (
        "--listen 127.0.0.1:3478=192.0.2.1 --nat-discovery 127.0.0.2=192.0.2.1 --relay-address 127.0.0.1=192.0.2.1",
        &["--relay-address, --listen and --nat-discovery", "192.0.2.1", "127.0.0.2"],
    ),
];

#[test]
fn a_bad_value_is_refused_in_one_line_with_what_is_allowed() {
    let host = Namespace::new("cli");
    for (option, values, allowed) in VALUES {
        for value in values {
            let arguments = ["--listen", "127.0.0.1:3478", &format!("{option}={value}")].map(str::to_owned);
            serve(&host, &arguments).expect_one_line(2, &[option, value, allowed]);
        }
    }
    for flag in ["--tcp-relay", "--mobility"] {
        serve(&host, &[format!("{flag}=yes")]).expect_one_line(2, &[flag, "yes"]);
        serve(&host, &[flag.to_owned(), flag.to_owned()]).expect_one_line(2, &[flag]);
    }
}

#[test]
fn what_does_not_go_together_is_refused_in_one_line() {
    let host = Namespace::new("cli");
    for (arguments, words) in CONTRADICTIONS {
        serve(&host, &split(arguments)).expect_one_line(2, words);
    }
}

#[test]
fn a_certificate_that_is_none_is_refused_in_one_line_that_names_the_file() {
    let (host, authority) = (Namespace::new("cli"), Authority::new());
    let [good, other] = ["good.test", "other.test"].map(|name| authority.issue(Key::Ecdsa, name, &[]));
    let files = Files::new();
    let (missing, text, empty) =
        (files.0.path().join("missing"), files.write("text", "hello\n"), files.write("empty", ""));
    let (locked, weak) = (files.key("locked", "aes256", 2048), files.key("weak", "none", 1024));
    let Certificate { file, private_key, .. } = &good;
    // That others can read a key would be a line more.
    for path in [&text, &empty, file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
    let no_certificate = "there is no certificate in PEM form (BEGIN CERTIFICATE) in it";
    let no_key = "there is no private key in PEM form without a password in it";
    let certificates: [(&Path, &str); 5] = [
        (&missing, "No such file or directory (os error 2)"),
        (files.0.path(), "a file of at most 1 MiB is needed"),
        (&text, no_certificate),
        (&empty, no_certificate),
        (private_key, no_certificate),
    ];
    let keys: [(&Path, &str); 6] = [
        (&missing, "No such file or directory (os error 2)"),
        (&text, no_key),
        (file, no_key),
        (&locked, no_key),
        (&weak, "RSA (2048 to 8192 bits), ECDSA (P-256, P-384) and Ed25519 keys are allowed"),
        (&other.private_key, "it is not the key of the first certificate in"),
    ];
    let refused = |option: &str, certificate: &Path, key: &Path, bad: &Path, why: &str| {
        for transport in ["tls", "dtls"] {
            let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
            let arguments =
                format!("--listen {transport}:127.0.0.1:5349 --certificate {certificate} --private-key {key}");
            let finished = serve(&host, &split(&arguments));
            finished.expect_one_line(1, &[&format!("{option} {}: ", bad.display()), why]);
            assert_eq!(finished.stderr.matches(why).count(), 1, "once is enough: {finished}");
        }
    };
    for (bad, why) in certificates {
        refused("--certificate", bad, private_key, bad, why);
    }
    for (bad, why) in keys {
        refused("--private-key", file, bad, bad, why);
    }
    // Of several it is the second that is wrong.
    let pairs = [&good, &other].map(|pair| format!("--certificate {}", pair.file.display())).join(" ");
    let keys = [&good, &good].map(|pair| format!("--private-key {}", pair.private_key.display())).join(" ");
    let finished = serve(&host, &split(&format!("--listen tls:127.0.0.1:5349 {pairs} {keys}")));
    finished.expect_one_line(1, &["--private-key", &other.file.display().to_string()]);
}

#[test]
fn what_may_go_together_does() {
    let (host, authority) = (Namespace::new("cli"), Authority::new());
    let Certificate { file, private_key, .. } = &authority.issue(Key::Rsa, "turn.test", &[]);
    let certified = format!("--certificate {} --private-key {}", file.display(), private_key.display());
    for options in [
        format!("--listen tcp:127.0.0.1:3478 --listen tls:127.0.0.1:3478 --listen 127.0.0.1:3478 --listen dtls:127.0.0.1:3478 {certified}"),
        "--listen tcp:127.0.0.1:3478 --listen tcp:[::1]:3478 --tcp-relay --mobility --proxy-protocol ::/0".to_owned(),
        "--listen 127.0.0.1:3478=192.0.2.1 --nat-discovery 127.0.0.2:4000=192.0.2.2 --relay-address 127.0.0.1=192.0.2.1"
            .to_owned(),
        "--listen 127.0.0.1:3478 --nat-discovery 127.0.0.1".to_owned(),
        "--listen 127.0.0.1:3478 --alternate-server turn:192.0.2.1:3478 --alternate-server turns:192.0.2.1:5349=a.test"
            .to_owned(),
    ] {
        let options: Vec<_> = options.split_whitespace().chain(["--xdp", "off"]).collect();
        Relay::start(&host, &options).stop();
    }
}

#[test]
fn a_tcp_port_in_use_is_said_in_one_line() {
    let host = Namespace::new("cli");
    let _other = host.enter(|| std::net::TcpListener::bind("127.0.0.1:3478")).unwrap();
    serve(&host, &split("--listen tcp:127.0.0.1:3478")).expect_one_line(1, &["--listen tcp:127.0.0.1:3478"]);
}

/// Runs a relay that is to be refused. Should it start after all, it leaves nothing on this host.
fn serve(host: &Namespace, arguments: &[String]) -> Finished {
    let mut command: Command = host.command(binary());
    command.args(["serve", "--user", "a:b", "--xdp", "off", "--admin", "off"]).args(arguments);
    if !arguments.iter().any(|argument| argument == "--relay-address") {
        command.args(["--relay-address", "127.0.0.1"]);
    }
    run_for(&mut command, AT_ONCE)
}

fn split(arguments: &str) -> Vec<String> {
    arguments.split_whitespace().map(str::to_owned).collect()
}

/// Files that are removed.
struct Files(Folder);

impl Files {
    fn new() -> Self {
        Self(Folder::new("cli"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A key of RSA, with a password if a cipher is named.
    fn key(&self, name: &str, cipher: &str, bits: u16) -> PathBuf {
        let path = self.0.path().join(name);
        let mut command = Command::new("openssl");
        command
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}"), "-out"])
            .arg(&path);
        if cipher != "none" {
            command.args([&format!("-{cipher}"), "-pass", "pass:secret"]);
        }
        process::run(&mut command).expect_success();
        path
    }
}
