//! The two ways in which a client and its server wrap data, and what a test does with either of them.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_proto::address::AddressFamily;

use super::Namespace;
use super::call::{CHANNEL, bind};
use super::relay::{PASSWORD, PORT, Relay, USER};
use super::topology::{Family, Lab};
use super::turn::Client;

/// How long a datagram may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a client talks about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// On [`CHANNEL`], in ChannelData messages.
    Channel,
    /// In Send and Data indications.
    Indication,
}

impl Framing {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Channel, Self::Indication];

    /// Allows the peer, and binds the channel where there is one.
    pub fn open(self, client: &mut Client, peer: SocketAddr) {
        match self {
            Self::Channel => client.bind_channel(CHANNEL, peer),
            Self::Indication => client.permit(peer.ip()),
        }
        .expect("a peer of the lab is allowed");
    }

    /// Sends data from the client to the peer.
    pub fn send(self, client: &mut Client, peer: SocketAddr, data: &[u8]) {
        match self {
            Self::Channel => client.send_on_channel(CHANNEL, data),
            Self::Indication => client.send_indication(peer, data),
        }
    }

    /// Checks that the client gets this data of the peer next.
    #[track_caller]
    pub fn expect(self, client: &Client, peer: SocketAddr, data: &[u8]) {
        match self {
            Self::Channel => assert_eq!(client.receive_on_channel(PATIENCE), Some((CHANNEL, data.to_vec()))),
            Self::Indication => assert_eq!(client.receive_indication(PATIENCE), Some((peer, data.to_vec()))),
        }
    }
}

/// A client on the lab's first client host, with an allocation of any family at the relay's address of its own family.
pub fn allocate(lab: &Lab, client: Family, relayed: Family) -> (Client, SocketAddr) {
    let server = SocketAddr::new(Lab::relay_ip(client), PORT);
    let mut client =
        Client::new(&lab.clients[0], SocketAddr::new(Lab::client_ip(client, 0), 0), server, USER, PASSWORD);
    let family = match relayed {
        Family::V4 => AddressFamily::V4,
        Family::V6 => AddressFamily::V6,
    };
    let relayed = client.allocate_of(family, false).expect("the relay has room");
    (client, relayed)
}

/// A socket on a peer's host, and its address.
pub fn peer_socket(host: &Namespace, ip: std::net::IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = bind(host, SocketAddr::new(ip, 0));
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// Exchanges data until userspace sees none of it: what a request installs follows its response within moments.
#[track_caller]
pub fn settle(relay: &Relay<'_>, mut exchange: impl FnMut()) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let before = relay.metrics().relayed("userspace");
        exchange();
        let metrics = relay.metrics();
        if metrics.relayed("userspace") == before {
            return;
        }
        assert!(Instant::now() < end, "data still goes through userspace: {metrics:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}
