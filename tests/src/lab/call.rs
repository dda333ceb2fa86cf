//! A client and a peer that reach each other over a channel.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::Namespace;
use super::relay::{PASSWORD, PORT, Relay, USER};
use super::topology::{Family, Lab};
use super::turn::Client;

/// The channel of every call.
pub const CHANNEL: u16 = 0x4000;
/// How long a datagram may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this time without a datagram there will be none.
const QUIET: Duration = Duration::from_millis(300);

/// An allocation with one channel, and the peer at its other end.
#[derive(Debug)]
pub struct Call {
    /// The client, with its allocation.
    pub client: Client,
    /// The socket of the peer, connected to the relayed address.
    pub peer: UdpSocket,
    /// Where the peer gets to see the client.
    pub relayed: SocketAddr,
}

impl Call {
    /// What the kernel knows of a call: its relayed address, its permission, its channel.
    pub const FLOWS: u64 = 3;

    /// Allocates and binds [`CHANNEL`], through a relay with the user of [`Relay::start`]. All ports are any.
    pub fn new(lab: &Lab, family: Family) -> Self {
        Self::between(lab, family, 0, 0)
    }

    /// The same, with ports for the client and the peer.
    pub fn between(lab: &Lab, family: Family, client: u16, peer: u16) -> Self {
        Self::through(lab, Lab::relay_ip(family), client, peer)
    }

    /// The same, through any address of the relay.
    pub fn through(lab: &Lab, relay: IpAddr, client: u16, peer: u16) -> Self {
        let family = if relay.is_ipv4() { Family::V4 } else { Family::V6 };
        let client = SocketAddr::new(Lab::client_ip(family, 0), client);
        let server = SocketAddr::new(relay, PORT);
        let mut client = Client::new(&lab.clients[0], client, server, USER, PASSWORD);
        let relayed = client.allocate().expect("the relay has room");
        let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), peer));
        peer.connect(relayed).expect("the lab has a route to the relay");
        client.bind_channel(CHANNEL, address(&peer)).expect("a peer of the lab is allowed");
        Self { client, peer, relayed }
    }

    /// The same, and waits until the kernel forwards it and nothing else.
    pub fn in_kernel(lab: &Lab, relay: &Relay<'_>, family: Family) -> Self {
        let call = Self::new(lab, family);
        relay.wait_for("the channel is in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == Self::FLOWS);
        call
    }

    /// The address of the peer.
    pub fn peer_address(&self) -> SocketAddr {
        address(&self.peer)
    }

    /// Sends a datagram to the peer and one back, and checks that both arrive as they were.
    pub fn exchange(&self, data: &[u8]) {
        assert_eq!(self.to_peer(data).as_deref(), Some(data), "what the peer of {} got", self.relayed);
        assert_eq!(self.to_client(data).as_deref(), Some(data), "what the client of {} got", self.relayed);
    }

    /// What the peer receives when the client sends this, if anything.
    pub fn to_peer(&self, data: &[u8]) -> Option<Vec<u8>> {
        self.client.send_on_channel(CHANNEL, data);
        receive(&self.peer, PATIENCE)
    }

    /// What the client receives on the channel when the peer sends this, if anything.
    pub fn to_client(&self, data: &[u8]) -> Option<Vec<u8>> {
        self.peer.send(data).expect("the way to the relay is open");
        self.client.receive_on_channel(PATIENCE).filter(|(channel, _)| *channel == CHANNEL).map(|(_, data)| data)
    }

    /// Checks that no datagram comes through, in either direction.
    pub fn expect_silence(&self) {
        self.client.send_on_channel(CHANNEL, b"nobody listens");
        // An answer that the port is closed is fine; it ends the waiting early.
        let _ = self.peer.send(b"nobody listens");
        assert_eq!(receive(&self.peer, QUIET), None, "the peer must get nothing");
        assert_eq!(self.client.receive_on_channel(QUIET), None, "the client must get nothing");
    }
}

/// A socket in a namespace.
pub fn bind(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    namespace.enter(|| bind_here(address))
}

/// A socket in this thread's namespace. Of one that was just closed, a program that another test is starting may still have
/// a copy, so an address that is in use may soon be free.
pub(super) fn bind_here(address: SocketAddr) -> UdpSocket {
    let end = Instant::now() + PATIENCE;
    loop {
        match UdpSocket::bind(address) {
            Ok(socket) => return socket,
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

/// The next datagram, if one comes in time.
pub fn receive(socket: &UdpSocket, limit: Duration) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(limit)).expect("a valid time");
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}
