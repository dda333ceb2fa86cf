//! A peer that reflects what it receives.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::net::{IpFields, Outgoing, ReceiveBatch, SendBatch, SocketError, UdpSocket};

/// How soon a thread notices that it shall stop.
const NOTICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Services that answer everything live below this port: reflecting to them would go round for ever.
const LOWEST_SOURCE: u16 = 1024;

/// Reflects on a thread of its own until it is dropped.
#[derive(Debug)]
pub(super) struct Reflector {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    stop: AtomicBool,
    reflected: AtomicU64,
}

impl Reflector {
    /// Opens a socket and starts.
    pub(super) fn start(address: SocketAddr) -> Result<Self, SocketError> {
        let socket = UdpSocket::listener(address, false)?;
        let shared = Arc::new(Shared { socket, stop: AtomicBool::new(false), reflected: AtomicU64::new(0) });
        let for_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            // An error here shows in the result: nothing is reflected.
            let _ = reflect(&for_thread.socket, &for_thread.stop, &for_thread.reflected);
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.shared.socket
    }

    /// How many datagrams it has sent back.
    pub(super) fn reflected(&self) -> u64 {
        self.shared.reflected.load(Ordering::Relaxed)
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so itself.
            let _ = thread.join();
        }
    }
}

/// Sends every datagram back to its source, until `stop`. `reflected` counts them.
pub(super) fn reflect(socket: &UdpSocket, stop: &AtomicBool, reflected: &AtomicU64) -> io::Result<()> {
    let mut received = ReceiveBatch::new();
    let mut replies = SendBatch::new();
    while !stop.load(Ordering::Relaxed) {
        match received.receive(socket.as_fd(), ()) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(socket, PollFlags::IN)];
                match poll(&mut ready, Some(&NOTICE)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            // Such as an ICMP error of an earlier reply.
            Err(_) => continue,
        }
        let mut count = 0;
        let mut outbox = replies.start();
        for datagram in received.iter().filter(|datagram| datagram.source.port() >= LOWEST_SOURCE) {
            if outbox.is_full() {
                outbox.flush(|()| Some(socket.as_fd()), |(), _| count -= 1);
            }
            outbox.push(&Outgoing {
                socket: (),
                source: datagram.destination,
                destination: datagram.source,
                ip: IpFields::ORIGINATED,
                header: &[],
                payload: datagram.payload,
                padding: 0,
            });
            count += 1;
        }
        outbox.flush(|()| Some(socket.as_fd()), |(), _| count -= 1);
        received.clear();
        reflected.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_come_back_to_whoever_sent_them() {
        for ip in ["127.0.0.1", "::1"] {
            let reflector = Reflector::start(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
            let address = reflector.socket().local();
            let clients = [(); 3].map(|()| std::net::UdpSocket::bind((ip, 0)).unwrap());
            for (n, client) in clients.iter().enumerate() {
                client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                client.send_to(&vec![n as u8; 100 * n], address).unwrap();
            }
            let mut buffer = [0; 1000];
            for (n, client) in clients.iter().enumerate() {
                let (length, source) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], source), (&*vec![n as u8; 100 * n], address));
            }
            let shared = Arc::clone(&reflector.shared);
            drop(reflector);
            assert_eq!(shared.reflected.load(Ordering::Relaxed), 3);
        }
    }
}
