//! Candidates as they are written, read, and weighed.

use super::*;

/// A candidate of which one field, counted from 0, is another.
fn with(field: usize, text: &str) -> Result<Candidate, CandidateError> {
    let mut fields = ["candidate:1", "1", "UDP", "2130706431", "198.51.100.1", "4000", "typ", "host"];
    fields[field] = text;
    fields.join(" ").parse()
}

fn read(text: &str) -> Candidate {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn ip(text: &str) -> CandidateAddress {
    CandidateAddress::Ip(text.parse().unwrap())
}

fn name(text: &str) -> CandidateAddress {
    CandidateAddress::Name(text.to_owned())
}

#[test]
fn every_field_is_read() {
    let candidate =
        read("candidate:Scb007105 2 UDP 1694498814 203.0.113.5 15649 typ srflx raddr 198.51.100.80 rport 15648");
    let expected = Candidate {
        foundation: "Scb007105".to_owned(),
        component: 2,
        transport: CandidateTransport::Udp,
        priority: 1_694_498_814,
        address: ip("203.0.113.5"),
        port: 15649,
        kind: CandidateKind::ServerReflexive,
        related: Some((ip("198.51.100.80"), 15648)),
    };
    assert_eq!(candidate, expected);
}

#[test]
fn what_agents_write_is_read_and_written_one_way() {
    for (text, canonical) in [
        (
            "a=candidate:842163049 1 udp 1677729535 203.0.113.77 51472 typ srflx raddr 0.0.0.0 rport 0 \
             generation 0 ufrag zL4k network-cost 999",
            "candidate:842163049 1 UDP 1677729535 203.0.113.77 51472 typ srflx raddr 0.0.0.0 rport 0",
        ),
        (
            "candidate:1510613869 1 tcp 1518280447 198.51.100.23 9 typ host tcptype active generation 0",
            "candidate:1510613869 1 tcp 1518280447 198.51.100.23 9 typ host",
        ),
        (
            "candidate:+/a 256 Udp 1 2001:DB8:0::1 65535 typ relay generation 0 rport 9 raddr 3b3c-1.local\r\n",
            "candidate:+/a 256 UDP 1 2001:db8::1 65535 typ relay raddr 3b3c-1.local rport 9",
        ),
        (
            "candidate:1  1\tUDP 007 media.example.org. 0 typ prflx x",
            "candidate:1 1 UDP 7 media.example.org. 0 typ prflx",
        ),
        (
            "candidate:1 1 UDP 1 198.51.100.1 1 typ later raddr 198.51.100.2",
            "candidate:1 1 UDP 1 198.51.100.1 1 typ later",
        ),
        ("candidate:1 1 UDP 1 198.51.100.1 1 typ host typ relay", "candidate:1 1 UDP 1 198.51.100.1 1 typ host"),
    ] {
        let candidate = read(text);
        assert_eq!(candidate.to_string(), canonical, "{text}");
        assert_eq!(read(canonical), candidate, "{text}");
    }
}

#[test]
fn all_kinds_are_told_apart() {
    for (text, kind) in [
        ("host", CandidateKind::Host),
        ("srflx", CandidateKind::ServerReflexive),
        ("prflx", CandidateKind::PeerReflexive),
        ("relay", CandidateKind::Relayed),
        ("quic", CandidateKind::Other("quic".to_owned())),
    ] {
        assert_eq!(with(7, text).unwrap().kind, kind);
        assert_eq!(kind.to_string(), text);
    }
}

#[test]
fn a_wrong_field_is_named() {
    let long = "a".repeat(33);
    let long_name = format!("{}.local", "a".repeat(250));
    for (field, texts, error) in [
        (0, &["candidate:ü", "candidate:a-b"][..], CandidateError::Foundation as fn(String) -> _),
        (1, &["0", "257", "-1", "+1", "x", "65536", "1.0"], CandidateError::Component),
        (2, &["UD/P", "ü"], CandidateError::Transport),
        (3, &["0", "2147483648", "4294967296", "-1", "+1", "x"], CandidateError::Priority),
        (
            4,
            &["256.1.1.1", "1.2.3", "[::1]", "1:2", "a/b", "ü.local", ".", "127.0.0.1.", &long_name],
            CandidateError::Address,
        ),
        (4, &["fe80::1%eth0", "fe80::1%2"], CandidateError::Zone),
        (5, &["65536", "-1", "+1", "x"], CandidateError::Port),
        (6, &["type", "TYP"], CandidateError::Typ),
        (7, &["re:lay"], CandidateError::Kind),
        (7, &["srflx raddr 1.2.3 rport 1"], |_| CandidateError::RelatedAddress("1.2.3".to_owned())),
        (7, &["srflx raddr 1.2.3.4 rport x"], |_| CandidateError::RelatedPort("x".to_owned())),
        (7, &["srflx raddr fe80::1%1 rport 1"], |_| CandidateError::Zone("fe80::1%1".to_owned())),
    ] {
        for text in texts {
            let told = text.strip_prefix("candidate:").unwrap_or(text).chars().take(64).collect();
            assert_eq!(with(field, text), Err(error(told)), "{text}");
        }
    }
    assert_eq!(with(0, &format!("candidate:{long}")), Err(CandidateError::Foundation(long.clone())));
    assert!(with(0, &format!("candidate:{}", &long[..32])).is_ok());
    assert_eq!(
        "candidate: 1 1 UDP 1 198.51.100.1 1 typ host".parse::<Candidate>(),
        Err(CandidateError::Foundation(String::new()))
    );
    for text in
        ["", "a=", "candidate", "1 1 UDP 1 198.51.100.1 1 typ host", "b=candidate:1", " candidate:1", "Candidate:1"]
    {
        assert_eq!(text.parse::<Candidate>(), Err(CandidateError::Prefix(text.to_owned())), "{text}");
    }
}

#[test]
fn a_candidate_that_ends_early_says_what_it_lacks() {
    let whole = "candidate:1 1 UDP 1 198.51.100.1 4000 typ host";
    let fields = ["foundation", "component", "transport", "priority", "address", "port", "type", "type"];
    for (count, field) in fields.into_iter().enumerate() {
        let text = match count {
            0 => "candidate:".to_owned(),
            _ => whole.split(' ').take(count).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(text.parse::<Candidate>(), Err(CandidateError::Missing(field)), "{text}");
    }
    let told = CandidateError::Missing("port").to_string();
    assert!(told.contains("has no port") && told.contains("ADDRESS PORT typ TYPE"), "{told}");
    let told = with(1, "257").unwrap_err().to_string();
    assert_eq!(told, "\"257\" is no component: one is a number from 1 to 256");
}

#[test]
fn only_datagrams_to_one_known_host_are_of_use() {
    for (transport, address, port, expected) in [
        ("UDP", "198.51.100.1", "4000", Some("198.51.100.1:4000")),
        ("udp", "2001:db8::1", "9", Some("[2001:db8::1]:9")),
        ("UDP", "::ffff:198.51.100.1", "4000", Some("198.51.100.1:4000")),
        ("UDP", "198.51.100.1", "0", None),
        ("TCP", "198.51.100.1", "4000", None),
        ("UDP", "3b3c.local", "4000", None),
        ("UDP", "0.0.0.0", "4000", None),
        ("UDP", "::", "4000", None),
        ("UDP", "224.0.0.1", "4000", None),
        ("UDP", "ff02::1", "4000", None),
    ] {
        let candidate = read(&format!("candidate:1 1 {transport} 1 {address} {port} typ host"));
        let expected = expected.map(|address| address.parse().unwrap());
        assert_eq!(candidate.usable(), expected, "{candidate}");
    }
    assert_eq!(with(4, "3b3c.local").unwrap().address, name("3b3c.local"));
}

#[test]
fn priorities_are_those_of_the_rfc() {
    // By hand: 126 * 2^24 = 2113929216, 65535 * 2^8 = 16776960, 256 - 1 = 255.
    for (type_preference, local_preference, component, expected) in [
        (126, 65535, 1, 2_113_929_216 + 16_776_960 + 255),
        (126, 65535, 2, 2_130_706_430),
        (126, 0, 256, 2_113_929_216),
        (110, 65535, 1, 1_862_270_975),
        (100, 65535, 1, 1_694_498_815),
        (100, 1, 1, 1_677_722_111),
        (0, 65535, 1, 16_777_215),
        (0, 0, 255, 1),
    ] {
        assert_eq!(priority(type_preference, local_preference, component), expected);
    }
}

#[test]
fn a_priority_can_always_be_written() {
    for type_preference in [0, 126, 127, 255] {
        for component in [0, 1, 256, 257, u16::MAX] {
            for local_preference in [0, u16::MAX] {
                let priority = priority(type_preference, local_preference, component);
                assert!(with(3, &priority.to_string()).is_ok(), "{priority}");
            }
        }
    }
    assert_eq!(priority(255, 7, 1), priority(126, 7, 1));
}

#[test]
fn both_agents_give_a_pair_the_same_priority() {
    let (host, reflexive) = (2_130_706_431, 1_694_498_815);
    // By hand: 1694498815 * 2^32 + 2 * 2130706431, and one more if the controlling agent's is the greater.
    assert_eq!(pair_priority(reflexive, host), 7_277_816_997_797_167_102);
    assert_eq!(pair_priority(host, reflexive), 7_277_816_997_797_167_103);
    assert_eq!(pair_priority(host, host), 9_151_314_442_783_293_438);
    assert_eq!(pair_priority(1, 2), (1 << 32) + 4);
    assert_eq!(pair_priority(0, 0), 0);
    assert_eq!(pair_priority(u32::MAX, u32::MAX), u64::MAX, "no candidate may have it, but a check can say so");
}
