//! A man in the middle of a client and its server, over UDP: sees each message, and passes on what a test makes of it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::namespace::Namespace;

/// Class, method, length, magic cookie and transaction id.
const HEADER: usize = 20;
/// FINGERPRINT, which is not right any more when something else has changed.
const FINGERPRINT: u16 = 0x8028;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// Stands between one client at a time and a server, on loopback, until it is dropped.
pub struct Meddler {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Makes another message of one.
type Meddle = dyn Fn(Direction, &[u8]) -> Vec<u8> + Send + Sync;

struct Shared {
    /// Towards the client, and towards the server.
    front: UdpSocket,
    back: UdpSocket,
    client: Mutex<Option<SocketAddr>>,
    seen: Mutex<Vec<(Direction, Vec<u8>)>>,
    meddle: Box<Meddle>,
    is_over: AtomicBool,
}

impl Meddler {
    /// Puts one in front of a server.
    pub fn start(
        namespace: &Namespace,
        server: SocketAddr,
        meddle: impl Fn(Direction, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let socket = || {
            let socket = namespace.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).expect("loopback has a port");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a valid time");
            socket
        };
        let (front, back) = (socket(), socket());
        back.connect(server).expect("loopback is a way");
        let address = front.local_addr().expect("it is bound");
        let (client, seen, is_over) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { front, back, client, seen, meddle: Box::new(meddle), is_over });
        for direction in [Direction::ToServer, Direction::ToClient] {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.pass_on(direction));
        }
        Self { address, shared }
    }

    /// Where the client finds it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that came from the client or the server, as it came.
    pub fn seen(&self, direction: Direction) -> Vec<Vec<u8>> {
        let seen = locked(&self.shared.seen);
        seen.iter().filter(|(way, _)| *way == direction).map(|(_, message)| message.clone()).collect()
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddler").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    fn pass_on(&self, direction: Direction) {
        let mut buffer = [0; 2048];
        let from = if direction == Direction::ToServer { &self.front } else { &self.back };
        while !self.is_over.load(Ordering::Relaxed) {
            // Nothing has come, or the other end has gone.
            let Ok((length, sender)) = from.recv_from(&mut buffer) else { continue };
            let message = &buffer[..length];
            locked(&self.seen).push((direction, message.to_vec()));
            let other = (self.meddle)(direction, message);
            // Whoever is gone gets nothing.
            let _ = match direction {
                Direction::ToServer => {
                    *locked(&self.client) = Some(sender);
                    self.back.send(&other)
                }
                Direction::ToClient => match *locked(&self.client) {
                    Some(client) => self.front.send_to(&other, client),
                    None => continue,
                },
            };
        }
    }
}

/// All attributes of a STUN message, types and values.
///
/// # Panics
/// When it is none.
pub fn attributes(message: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut rest = message.get(HEADER..).expect("a header");
    let mut attributes = Vec::new();
    while let Some(([kind_high, kind_low, length_high, length_low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        attributes.push((u16::from_be_bytes([*kind_high, *kind_low]), behind[..length].to_vec()));
        rest = behind.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    attributes
}

/// The same message with other attributes: those for which there is no value are left out, and FINGERPRINT is too.
///
/// # Panics
/// When it is none.
pub fn rewrite(message: &[u8], change: impl Fn(u16, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut other = message[..HEADER].to_vec();
    for (kind, value) in attributes(message).into_iter().filter(|(kind, _)| *kind != FINGERPRINT) {
        let Some(value) = change(kind, value) else { continue };
        other.extend_from_slice(&kind.to_be_bytes());
        other.extend_from_slice(&u16::try_from(value.len()).expect("it fits in a datagram").to_be_bytes());
        other.extend_from_slice(&value);
        other.resize(other.len().next_multiple_of(4), 0);
    }
    let length = u16::try_from(other.len() - HEADER).expect("it fits in a datagram");
    other[2..4].copy_from_slice(&length.to_be_bytes());
    other
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_changed_and_left_out() {
        let mut message = vec![0; HEADER];
        message[3] = 24;
        message.extend([0, 0x15, 0, 3, b'a', b'b', b'c', 0, 0x80, 0x02, 0, 4, 0, 1, 0, 0]);
        message.extend([0x80, 0x28, 0, 4, 1, 2, 3, 4]);
        assert_eq!(attributes(&message).len(), 3);
        let other = rewrite(&message, |kind, value| (kind == 0x15).then(|| [&value[..], b"de"].concat()));
        assert_eq!(attributes(&other), [(0x15, b"abcde".to_vec())]);
        assert_eq!((other.len(), other[3]), (HEADER + 12, 12));
    }
}
