//! The two examples of DNS records say the same, and clients understand them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use hairpin_client::{Resolver, ServerUri, Transport};

use crate::network::{NAME_SERVER, Network, RELAYS, ip, repository};

/// The records of the zone file, as `name type data`, without what no resolver tells.
fn zone() -> BTreeSet<String> {
    let text = fs::read_to_string(repository("deploy/dns/example.org.zone")).expect("it is there");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with([';', '$']));
    let words = lines.map(|line| line.replace('"', "'").split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words
        .map(|words| {
            assert_eq!(words[1], "IN", "{words:?}");
            format!("{} {} {}", words[0], words[2], words[3..].join(" "))
        })
        .collect()
}

/// What the name server says of all names and types that the zone file has.
fn served(network: &Network) -> BTreeSet<String> {
    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::rr::{RData, RecordType};

    let questions: BTreeSet<(String, String)> = zone()
        .iter()
        .map(|record| {
            let mut words = record.split(' ').map(str::to_owned);
            (words.next().expect("a name"), words.next().expect("a type"))
        })
        .collect();
    network.clients.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it is Linux");
        runtime.block_on(async {
            let config = ResolverConfig::from_name_servers(vec![NameServerConfig::udp(NAME_SERVER.ip())]);
            let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .build()
                .expect("a resolver");
            let mut records = BTreeSet::new();
            for (name, kind) in questions {
                let kind: RecordType = kind.parse().expect("a type");
                let found =
                    resolver.lookup(name.as_str(), kind).await.unwrap_or_else(|error| panic!("{name} {kind}: {error}"));
                for record in found.answers() {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let data = match &record.data {
                        RData::A(address) => address.to_string(),
                        RData::AAAA(address) => address.to_string(),
                        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target),
                        RData::NAPTR(naptr) => format!(
                            "{} {} '{}' '{}' '{}' {}",
                            naptr.order,
                            naptr.preference,
                            text(&naptr.flags),
                            text(&naptr.services),
                            text(&naptr.regexp),
                            naptr.replacement
                        ),
                        other => panic!("{other:?}"),
                    };
                    records.insert(format!("{name} {kind} {data}"));
                }
            }
            records
        })
    })
}

#[test]
fn the_zone_file_and_dnsmasq_say_the_same() {
    let Some(network) = Network::new() else { return };
    assert_eq!(served(&network), zone());
}

#[test]
fn the_name_stands_for_all_relays_and_udp_comes_first() {
    let Some(network) = Network::new() else { return };
    let targets = |uri: &str, spoken: &[Transport]| {
        let uri: ServerUri = uri.parse().expect("a URI");
        network.clients.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it is Linux");
            let found = runtime.block_on(async { Resolver::at(NAME_SERVER)?.targets(&uri, spoken).await });
            found.unwrap_or_else(|error| panic!("{uri}: {error}"))
        })
    };
    let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let plain = targets("turn:turn.example.org", &all);
    let transports: Vec<_> = plain.iter().map(|target| target.transport).collect();
    assert_eq!(transports, [[Transport::Udp; 6], [Transport::Tcp; 6]].concat());
    let addresses = |port| -> BTreeSet<_> {
        let v4 = RELAYS.map(|relay| SocketAddr::new(ip(relay), port));
        let v6 = RELAYS.map(|relay| format!("[2001:db8:113::{relay}]:{port}").parse().expect("an address"));
        v4.into_iter().chain(v6).collect()
    };
    assert_eq!(plain.iter().map(|target| target.address).collect::<BTreeSet<_>>(), addresses(3478));
    let secure = targets("turns:turn.example.org", &all);
    assert!(secure.iter().all(|target| target.transport == Transport::Tls), "{secure:?}");
    assert_eq!(secure.iter().map(|target| target.address).collect::<BTreeSet<_>>(), addresses(5349));
    // Which relay is first is left to chance: over many clients, each is.
    let firsts: BTreeSet<_> =
        (0..60).map(|_| targets("turn:turn.example.org?transport=udp", &all)[0].address).collect();
    assert!(firsts.len() >= 3, "{firsts:?}");
}
