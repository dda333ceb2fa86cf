use super::render::{Kind, Note};

/// What the file holds that is made of these lines, and what is said.
fn imported(text: &str) -> (toml::Table, Vec<Note>) {
    let (file, notes) = super::import(text, "turnserver.conf");
    (file.parse().unwrap_or_else(|error| panic!("{error}\n{file}")), notes)
}

fn table(text: &str) -> toml::Table {
    imported(text).0
}

/// What needs a look, without what is always said.
fn looks(text: &str) -> Vec<String> {
    let notes = imported(text).1;
    let about_lines = notes.iter().filter(|note| note.kind != Kind::Ignored && note.line > 0);
    about_lines.map(ToString::to_string).collect()
}

fn expect(text: &str, expected: &str) {
    let expected: toml::Table = expected.parse().unwrap();
    assert_eq!(table(text), expected, "of\n{text}");
}

/// Words that keep relaying of TCP and users out of a case.
const QUIET: &str = "no-tcp-relay\nuser=a:b\n";

fn expect_quiet(text: &str, expected: &str) {
    expect(&format!("{QUIET}{text}"), &format!("user = ['a:b']\n{expected}"));
}

#[test]
fn nothing_is_what_hairpin_does_anyway_but_for_tcp() {
    expect("", "tcp-relay = true");
    expect_quiet("", "");
    expect_quiet("listening-port=3478\ntls-listening-port=5349\nlistening-port=0", "");
}

#[test]
fn each_port_serves_who_encrypts_and_who_does_not() {
    expect_quiet("listening-ip=192.0.2.1\nno-tcp", "listen = ['udp:192.0.2.1:3478']");
    expect_quiet("listening-ip=192.0.2.1\nno-udp\nlistening-port=80", "listen = ['tcp:192.0.2.1:80']");
    let files = "cert=/c\npkey=/k\nlistening-ip=192.0.2.1\n";
    let keys = "certificate = ['/c']\nprivate-key = ['/k']\n";
    let both = "'dtls:192.0.2.1:3478', 'tls:192.0.2.1:3478', 'dtls:192.0.2.1:5349', 'tls:192.0.2.1:5349'";
    expect_quiet(
        files,
        &format!(
            "{keys}listen = ['udp:192.0.2.1:3478', 'tcp:192.0.2.1:3478', {both}, 'udp:192.0.2.1:5349', \
             'tcp:192.0.2.1:5349']"
        ),
    );
    expect_quiet(
        &format!("{files}no-udp\nno-tcp"),
        &format!("{keys}listen = ['dtls:192.0.2.1:5349', 'tls:192.0.2.1:5349']"),
    );
    expect_quiet(
        &format!("{files}no-tcp\nno-dtls"),
        &format!("{keys}listen = ['udp:192.0.2.1:3478', 'tls:192.0.2.1:5349']"),
    );
    expect_quiet(&format!("{files}no-tls\nno-dtls"), "listen = ['udp:192.0.2.1:3478', 'tcp:192.0.2.1:3478']");
}

#[test]
fn addresses_outside_are_of_one_address_or_of_all() {
    expect_quiet("external-ip=198.51.100.1\nno-tcp", "listen = ['udp:0.0.0.0:3478=198.51.100.1', 'udp:[::]:3478']");
    expect_quiet(
        "relay-ip=10.0.0.7\nexternal-ip=198.51.100.1\nno-tcp\nlistening-ip=10.0.0.7",
        "listen = ['udp:10.0.0.7:3478=198.51.100.1']\nrelay-address = ['10.0.0.7=198.51.100.1']",
    );
    expect_quiet(
        "external-ip=198.51.100.1/10.0.0.1\nexternal-ip=198.51.100.2/10.0.0.2",
        "relay-address = ['10.0.0.1=198.51.100.1', '10.0.0.2=198.51.100.2']",
    );
    // An address that is its own outside is behind no NAT.
    expect_quiet("relay-ip=10.0.0.7\nexternal-ip=10.0.0.7", "relay-address = ['10.0.0.7']");
    let lost = looks("relay-ip=10.0.0.1\nrelay-ip=10.0.0.2\nexternal-ip=198.51.100.1");
    assert!(lost.iter().any(|note| note.starts_with("line 2: not the same")), "{lost:?}");
}

/// A line of the file, as a comment or not.
fn has_line(text: &str, line: &str) -> bool {
    super::import(text, "turnserver.conf").0.lines().any(|written| written == line)
}

#[test]
fn who_may_relay_is_who_may_relay_there() {
    let no_tcp = "no-tcp-relay\n";
    expect(&format!("{no_tcp}static-auth-secret=s1\nstatic-auth-secret=\"s2\""), "auth-secret = ['s1', 's2']");
    expect(&format!("{no_tcp}user=a:x:y\nuser=b:1\nuser=b:2"), "user = ['a:x:y', 'b:2']");
    // Coturn knows no users while it has secrets.
    let both = format!("{no_tcp}user=a:b\nuse-auth-secret\nstatic-auth-secret=s");
    expect(&both, "auth-secret = ['s']");
    assert!(has_line(&both, "# user = [\"a:b\"]"));
    let hashed = format!("{no_tcp}user=a:0xbc807ee29df3c9ffa736523fb2c4e8ee");
    expect(&hashed, "user = ['a:0xbc807ee29df3c9ffa736523fb2c4e8ee']");
    assert!(looks("use-auth-secret")[0].contains("--user-store"), "{:?}", looks("use-auth-secret"));
    expect(&format!("{no_tcp}realm=example.org\nno-auth"), "realm = 'example.org'");
    assert!(looks("no-auth")[0].contains("never an open relay"));
    assert_eq!(looks("no-auth=off"), [""; 0]);
}

#[test]
fn relays_that_share_a_secret_for_nonces_go_on_to() {
    let long = "0123456789abcdef0123456789abcdef";
    expect_quiet(&format!("stateless-nonce\nstateless-nonce-secret={long}"), &format!("nonce-key = ['{long}']"));
    expect_quiet("stateless-nonce-secret=brief", "");
    let told = looks("stateless-nonce-secret=brief");
    assert!(told[0].starts_with("line 1: ") && told[0].contains("at least 32 characters"), "{told:?}");
    assert!(!told[0].contains("brief"), "{told:?}");
}

#[test]
fn databases_are_read_where_they_are() {
    for (line, url) in [
        ("userdb=/var/db/turndb", "sqlite:///var/db/turndb"),
        (
            "psql-userdb=\"host=db dbname=turn user=t password=p@ss: connect_timeout=30\"",
            "postgres://t:p%40ss%3A@db/turn",
        ),
        ("psql-userdb=host=/run/postgresql dbname=coturn user=t", "postgres://t@/coturn?host=%2Frun%2Fpostgresql"),
        (
            "psql-userdb=host=10.0.0.1 port=5433 user=t sslmode=disable",
            "postgres://t@10.0.0.1:5433/coturn?sslmode=disable",
        ),
        ("psql-userdb=postgresql://t:p@db/turn", "postgresql://t:p@db/turn"),
        ("redis-userdb=\"ip=127.0.0.1 dbname=2 password=s port=6380\"", "redis://:s@127.0.0.1:6380/2"),
        ("redis-userdb=ip=::1", "redis://[::1]:6379/0"),
    ] {
        expect(&format!("no-tcp-relay\n{line}"), &format!("user-store = ['{url}']"));
        let all = looks(&format!("use-auth-secret\n{line}"));
        assert!(!all.iter().any(|note| note.contains("use-auth-secret")), "the secrets are there: {all:?}");
    }
    assert!(looks("mysql-userdb=\"host=localhost\"")[0].contains("PostgreSQL"));
    assert!(looks("userdb=turndb")[0].contains("from the root"));
    expect(
        "no-tcp-relay\nuserdb=/db\noauth\nrealm=r",
        "realm = 'r'\nuser-store = ['sqlite:///db']\ntoken-audience = 'r'",
    );
    expect_quiet("oauth\nserver-name=turn.example.org", "token-audience = 'turn.example.org'");
    expect_quiet("server-name=turn.example.org", "");
}

#[test]
fn peers_are_networks_and_an_allowance_beats_a_denial() {
    expect_quiet(
        "denied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.0.0.1\ndenied-peer-ip=192.0.2.5-192.0.2.6",
        "allow-peer = ['10.0.0.1/32']\ndeny-peer = ['10.0.0.0/8', '192.0.2.5/32', '192.0.2.6/32']",
    );
    expect_quiet("allow-loopback-peers", "allow-peer = ['127.0.0.0/8', '::1/128']");
    assert!(has_line("", "#     \"10.0.0.0/8\","), "private peers are told of");
    assert!(!has_line("denied-peer-ip=10.0.0.0-10.255.255.255", "#     \"10.0.0.0/8\","), "unless the file decides");
    let own = looks("listening-ip=198.51.100.1\nallowed-peer-ip=198.51.100.1");
    assert!(own[0].starts_with("line 2: ") && own[0].contains("services of this host"), "{own:?}");
}

#[test]
fn limits_are_in_bits_and_within_the_ports() {
    expect_quiet(
        "user-quota=12 # four each\ntotal-quota=1200",
        "max-allocations-per-user = 12\nmax-allocations = 1200",
    );
    expect_quiet("user-quota=0\ntotal-quota=0\nbps-capacity=0\nmax-bps=0", "");
    expect_quiet("max-bps=64000\nbps-capacity=1000000", "allocation-bit-rate = 512000\nrelay-bit-rate = 16000000");
    expect_quiet("bps-capacity=1000000", "");
    expect_quiet("min-port=50000\nmax-port=50099\ntotal-quota=1200", "relay-ports = '50000-50099'");
    assert!(looks("min-port=50000\nmax-port=50099\ntotal-quota=1200")[0].contains("100 allocations"));
    expect_quiet("min-port=50000", "relay-ports = '50000-65535'");
    expect_quiet("relay-threads=0", "shards = 1");
}

#[test]
fn the_rest_that_has_a_counterpart() {
    expect_quiet("mobility", "mobility = true");
    expect_quiet(
        "alternate-server=192.0.2.9\ntls-alternate-server=[2001:db8::9]:443",
        "alternate-server = ['turn:192.0.2.9:3478', 'turns:[2001:db8::9]:443']",
    );
    expect_quiet(
        "rfc5780\nlistening-ip=192.0.2.1\nlistening-ip=192.0.2.2\nno-tcp\nalt-listening-port=4000",
        "listen = ['udp:192.0.2.1:3478', 'udp:192.0.2.2:3478']\nnat-discovery = ['192.0.2.2:4000']",
    );
    expect_quiet("prometheus\nprometheus-address=10.0.0.1\nprometheus-port=9000", "admin = '10.0.0.1:9000'");
    let proxied = "tcp-proxy-port=5555\nlistening-ip=192.0.2.1";
    expect_quiet(proxied, "listen = ['udp:192.0.2.1:3478']");
    assert!(looks(proxied)[0].contains("proxy-protocol"));
}

#[test]
fn each_line_that_is_not_translated_is_told_by_its_number() {
    let text = "secure-stun\n\nsyslog\nsecure-stun=0\npkey-pwd=secret\nchannel-lifetime=600\nchannel-lifetime=900";
    let told = looks(text);
    assert_eq!(told.len(), 3, "{told:?}");
    for (told, begin) in told.iter().zip(["line 1: no counterpart: secure-stun", "line 5: ", "line 7: "]) {
        assert!(told.starts_with(begin), "{told}");
    }
    assert!(!told.concat().contains("secret"), "what is secret is not told: {told:?}");
    let notes = imported(text).1;
    assert!(notes.iter().any(|note| note.line == 3 && note.kind == Kind::Ignored), "{notes:?}");
}

#[test]
fn what_coturn_takes_no_notice_of_is_told_as_a_mistake() {
    for (line, words) in [
        ("p=3478", "no such option"),
        ("--realm=x", "realm without dashes"),
        ("Realm=x", "no such option"),
        ("listening-ip=turn.example.org", "names are not looked up"),
        ("listening-port=70000", "not a port"),
        ("no-tcp=perhaps", "yes and no"),
        ("realm=x # why", "a line of its own"),
        ("denied-peer-ip=10.0.0.9-10.0.0.1", "neither an address nor a range"),
        ("external-ip=198.51.100.1/::1", "same IP version"),
        ("cert=/c", "together only"),
        ("user=alice", "PASSWORD"),
    ] {
        let told = looks(line);
        assert!(
            told.iter().any(|note| note.starts_with("line 1: mistake: ") && note.contains(words)),
            "{line}: {told:?}"
        );
    }
}
