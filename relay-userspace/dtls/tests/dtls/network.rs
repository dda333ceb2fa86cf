//! A client and a server with a network between them, all in memory.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_dtls::{ClientContext, Hello, MAX_PLAINTEXT, ServerContext, Session};

/// When flights get lost, they are sent again after this, so that tests need not wait for seconds. OpenSSL takes less
/// than 15 ms for nothing.
pub(crate) const SOON: Duration = Duration::from_millis(25);
/// When they do not, nothing is sent again, however slow the test is.
const NEVER: Duration = Duration::from_secs(60);

pub(crate) fn client_address() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

pub(crate) fn server_address() -> SocketAddr {
    "198.51.100.1:5349".parse().unwrap()
}

/// What a network does to each datagram, in percent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Flights whose datagrams come in any order, in percent.
    pub(crate) shuffled: u64,
}

/// A client and a server at its other end.
pub(crate) struct Network {
    pub(crate) client: Session,
    pub(crate) server: Option<Session>,
    context: ServerContext,
    faults: Faults,
    random: Random,
    /// The longest datagram that was sent.
    pub(crate) longest: usize,
    /// How many flights were sent again.
    pub(crate) timeouts: usize,
}

impl Network {
    pub(crate) fn new(client: &ClientContext, name: &str, server: &ServerContext, faults: Faults, seed: u64) -> Self {
        let timeout = if faults.lost > 0 { SOON } else { NEVER };
        let client = client.clone().with_first_timeout(timeout).connect(name).unwrap();
        let context = server.clone().with_first_timeout(timeout);
        Self { client, server: None, context, faults, random: Random(seed), longest: 0, timeouts: 0 }
    }

    /// One that loses nothing, after the handshake.
    pub(crate) fn established(client: &ClientContext, name: &str, server: &ServerContext) -> Self {
        let mut network = Self::new(client, name, server, Faults::default(), 0);
        network.run_handshake();
        assert!(network.is_established());
        network
    }

    pub(crate) fn is_established(&self) -> bool {
        self.client.is_established() && self.server.as_ref().is_some_and(Session::is_established)
    }

    pub(crate) fn server(&mut self) -> &mut Session {
        self.server.as_mut().expect("the server has a session")
    }

    /// Until both sides are established, or one has given up. Waits for timers only when nothing is under way.
    pub(crate) fn run_handshake(&mut self) {
        while !self.is_established() {
            let carried = self.carry();
            // An established server looks at a repeated flight, and repeats its own, when it is read from.
            for session in [Some(&mut self.client), self.server.as_mut()].into_iter().flatten() {
                assert!(read(session).is_empty());
            }
            if carried {
                continue;
            }
            let closed = self.client.is_closed() || self.server.as_ref().is_some_and(Session::is_closed);
            if closed {
                return;
            }
            let sessions = [Some(&mut self.client), self.server.as_mut()];
            let wait = sessions.iter().flatten().filter_map(|session| session.poll_timeout()).min();
            thread::sleep(wait.expect("a session waits for something"));
            for session in sessions.into_iter().flatten() {
                let _ = session.handle_timeout();
            }
            self.timeouts += 1;
        }
    }

    /// Carries what both sides have to send. Says whether there was anything.
    pub(crate) fn carry(&mut self) -> bool {
        let upwards = drain(&mut self.client);
        let downwards = self.server.as_mut().map(drain).unwrap_or_default();
        let carried = !upwards.is_empty() || !downwards.is_empty();
        for datagram in self.pass(upwards) {
            self.deliver(&datagram);
        }
        for datagram in self.pass(downwards) {
            let _ = self.client.receive(&datagram);
        }
        carried
    }

    /// Gives a datagram to the server, whose answer to a stranger goes back.
    pub(crate) fn deliver(&mut self, datagram: &[u8]) {
        if let Some(server) = &mut self.server {
            let _ = server.receive(datagram);
            return;
        }
        let mut reply = Vec::new();
        match self.context.hello(client_address(), server_address(), Instant::now(), datagram, &mut reply) {
            Hello::Reply => {
                assert!(reply.len() <= datagram.len());
                for reply in self.pass(vec![reply]) {
                    let _ = self.client.receive(&reply);
                }
            }
            Hello::Accepted(session) => self.server = Some(session),
            Hello::Ignored => {}
        }
    }

    fn pass(&mut self, datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut arriving = Vec::new();
        for datagram in datagrams {
            self.longest = self.longest.max(datagram.len());
            if self.random.below(100) < self.faults.lost {
                continue;
            }
            if self.random.below(100) < self.faults.repeated {
                arriving.push(datagram.clone());
            }
            arriving.push(datagram);
        }
        if self.random.below(100) < self.faults.shuffled {
            for last in (1..arriving.len()).rev() {
                let other = self.random.below(last as u64 + 1) as usize;
                arriving.swap(last, other);
            }
        }
        arriving
    }
}

/// All datagrams that a session has to send.
pub(crate) fn drain(session: &mut Session) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while let Some(datagram) = session.next_datagram() {
        datagrams.push(datagram.to_vec());
    }
    datagrams
}

/// All plaintexts that a session has received.
pub(crate) fn read(session: &mut Session) -> Vec<Vec<u8>> {
    let mut buffer = Box::new([0; MAX_PLAINTEXT]);
    let mut plaintexts = Vec::new();
    while let Some(len) = session.next_plaintext(&mut buffer) {
        plaintexts.push(buffer[..len].to_vec());
    }
    plaintexts
}

/// Xorshift: the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // Neighbouring seeds must not begin alike.
        let mut state = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0 = state;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
