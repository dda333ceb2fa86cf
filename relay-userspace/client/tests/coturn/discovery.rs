//! NAT behaviour discovery (RFC 5780) where there is no NAT.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hairpin_client::{Behaviour, Probe, Prober, Timing};
use hairpin_proto::stun::attribute::ChangeRequest;

use crate::server::{Coturn, Login};

#[tokio::test]
async fn an_answer_comes_from_where_it_is_asked_to() {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Some(coturn) = Coturn::start_with(ip, Login::Password, &["--listening-ip=127.0.0.2"]).await else { return };
    let timing = Timing { rto: Duration::from_millis(200), attempts: 3, patience: 3 };
    let local = SocketAddr::new(ip, 0);
    let prober = Prober::open(coturn.address, Some(local), timing).await.unwrap();
    let (first, source) = prober.probe(coturn.address, Probe::default()).await.unwrap();
    assert_eq!((first.mapped, source), (prober.local_addr().unwrap(), coturn.address));
    assert_eq!(first.origin, Some(coturn.address));
    let other = first.other.expect("coturn has two addresses");
    assert_eq!(other.ip(), IpAddr::from([127, 0, 0, 2]));
    for (ip, port) in [(false, true), (true, false), (true, true)] {
        let probe = Probe { change: Some(ChangeRequest { ip, port }), ..Probe::default() };
        let (probed, source) = prober.probe(coturn.address, probe).await.unwrap();
        let expected_ip = if ip { other.ip() } else { coturn.address.ip() };
        let expected_port = if port { other.port() } else { coturn.address.port() };
        assert_eq!(source, SocketAddr::new(expected_ip, expected_port));
        assert_eq!(probed.origin, Some(source));
    }
    assert_eq!(prober.discover_mapping().await.unwrap(), Behaviour::NoNat);
    assert_eq!(prober.discover_filtering().await.unwrap(), Behaviour::EndpointIndependent);
}
