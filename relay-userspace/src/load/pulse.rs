//! Whether the server is still there while packets flow: a server that dies must not look like a lossy one.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::{Error, Event, Request, Session, Settings, Timing, random_ids};
use serde::Serialize;

/// How often the server is asked.
const PACE: Duration = Duration::from_secs(1);
/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// Three attempts within 2.5 seconds: a server under load loses one, and not all of them.
const TIMING: Timing = Timing { rto: Duration::from_millis(500), attempts: 3, patience: 2 };

/// How a server was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lost {
    /// Its host says that nothing listens on its port any more (ICMP).
    Gone,
    /// Neither data nor answers to Binding requests come from it any more.
    Silent,
    /// It answers, but knows nothing of the allocations that it has given: it was started anew.
    Restarted,
    /// It has closed connections of its clients.
    Closed,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "its host says that nothing listens there any more",
            Self::Silent => "it answers nothing any more, not even Binding requests",
            Self::Restarted => "it has forgotten the allocations that it gave, so it was started anew",
            Self::Closed => "it has closed connections",
        })
    }
}

/// Asks a server every second for a sign of life, from a socket of its own that hears of ICMP errors.
pub(super) struct Pulse {
    socket: UdpSocket,
    session: Session,
    /// When the next request starts, if none is under way.
    next: Instant,
    look: Instant,
    /// How much data had come when the present request was made.
    received: u64,
}

impl Pulse {
    pub(super) fn new(server: SocketAddr, now: Instant) -> io::Result<Self> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let session = Session::new(Settings { timing: TIMING, ..Settings::default() }, random_ids());
        Ok(Self { socket, session, next: now + PACE, look: now, received: 0 })
    }

    /// Does what is due. `received` is how much data has come from the server so far: while there is some, it is alive,
    /// however busy.
    pub(super) fn beat(&mut self, received: u64, now: Instant) -> Option<Lost> {
        if now < self.look {
            return None;
        }
        self.look = now + LOOK;
        if now >= self.next && self.session.is_idle() {
            self.next = now + PACE;
            self.received = received;
            self.session.request(Request::Binding, now);
        }
        self.exchange(now);
        match self.session.poll_event() {
            Some(Event::Done(_, Err(Error::Unreachable))) => Some(Lost::Gone),
            Some(Event::Done(_, Err(Error::Timeout(_)))) if received == self.received => Some(Lost::Silent),
            _ => None,
        }
    }

    /// Asks once more, at the end, and waits for the answer.
    pub(super) fn is_lost(&mut self) -> Option<Lost> {
        let end = Instant::now() + TIMING.rto * 6;
        // Of an older request nothing is known yet that this one will not say.
        while !self.session.is_idle() && Instant::now() < end {
            if let Some(lost) = self.beat(0, Instant::now()) {
                return Some(lost);
            }
            thread::sleep(LOOK);
        }
        self.next = Instant::now();
        self.look = self.next;
        loop {
            if let Some(lost) = self.beat(0, Instant::now()) {
                return Some(lost);
            }
            if self.session.is_idle() {
                return None;
            }
            thread::sleep(LOOK);
        }
    }

    fn exchange(&mut self, now: Instant) {
        let mut unreachable = false;
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => drop(self.session.handle_datagram(&buffer[..length], now)),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => unreachable = true,
                // Nothing is there, or the error is about something else: the timer decides.
                Err(_) => break,
            }
        }
        self.session.handle_timeout(now);
        while let Some(datagram) = self.session.poll_transmit() {
            if let Err(error) = self.socket.send(&datagram) {
                unreachable |= error.kind() == ErrorKind::ConnectionRefused;
            }
        }
        if unreachable {
            self.session.handle_unreachable(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, attribute::XorMappedAddress};

    use super::*;

    fn server() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn answer(server: &UdpSocket) {
        let mut buffer = [0; 500];
        let (length, source) = server.recv_from(&mut buffer).unwrap();
        let id = Message::parse(&buffer[..length]).unwrap().transaction_id();
        let mut answer = Vec::new();
        MessageBuilder::new(&mut answer, Class::Success, Method::BINDING, id)
            .with(&XorMappedAddress(source))
            .finish(false);
        server.send_to(&answer, source).unwrap();
    }

    #[test]
    fn a_server_that_answers_is_there() {
        let server = server();
        let mut pulse = Pulse::new(server.local_addr().unwrap(), Instant::now()).unwrap();
        let answering = thread::spawn(move || answer(&server));
        assert_eq!(pulse.is_lost(), None);
        answering.join().unwrap();
    }

    #[test]
    fn a_server_whose_port_is_closed_is_gone() {
        let address = server().local_addr().unwrap();
        assert_eq!(Pulse::new(address, Instant::now()).unwrap().is_lost(), Some(Lost::Gone));
    }

    #[test]
    fn a_server_that_answers_nothing_is_silent_unless_data_comes_from_it() {
        let server = server();
        let start = Instant::now();
        let silence = |received: fn(u64) -> u64| {
            let mut pulse = Pulse::new(server.local_addr().unwrap(), start).unwrap();
            (0..500).find_map(|turn| {
                let now = start + LOOK * turn;
                pulse.beat(received(turn.into()), now).map(|lost| (lost, now - start))
            })
        };
        let (lost, after) = silence(|_| 7).unwrap();
        assert_eq!(lost, Lost::Silent);
        assert!(after > PACE + 2 * TIMING.rto && after < Duration::from_secs(5), "{after:?}");
        assert_eq!(silence(|turn| turn), None);
    }
}
