//! The clients of a run: a link to the server and a TURN session each, served by one thread.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hairpin_client::{Error, Event, Outcome, Received, Request, Session, Settings, Transport, random_ids};
use hairpin_proto::stun::{ErrorCode, Method};
use rustix::event::{Timespec, epoll};

use super::LoadError;
use super::link::{Link, Road};
use crate::net::{IpFields, ReceiveBatch, send_one};

/// Requests under way at a time: enough to hide the round trip, too few to be a flood.
const CONCURRENCY: usize = 64;
/// How often a client may take another port, on average, before its server is given up.
const MOVES: usize = 3;
/// How often the timers of all sessions are looked at; the shortest of them is 500 ms.
const TIMER_PACE: Duration = Duration::from_millis(20);
/// How long allocations that are ended at the end have to be answered, in all, and further for each of them.
const RELEASE: Duration = Duration::from_secs(1);
const RELEASE_EACH: Duration = Duration::from_millis(1);
/// How many ready sockets the kernel reports at once.
const READY: usize = 256;

/// One client.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) link: Link,
    session: Session,
    /// Its relayed address, once it has one.
    pub(super) relayed: Option<SocketAddr>,
    /// Whether the server keeps an allocation for it.
    is_allocated: bool,
}

impl Flow {
    fn open(
        epoll: &OwnedFd,
        index: usize,
        server: SocketAddr,
        road: &Road,
        settings: &Settings,
    ) -> Result<Self, LoadError> {
        let link = Link::open(road, server)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(epoll, &link, data, epoll::EventFlags::IN).map_err(io::Error::from)?;
        let transport = match road {
            Road::Udp(_) => Transport::Udp,
            // With TLS or without, it is the same to a session.
            Road::Stream(_) => Transport::Tcp,
        };
        let session = Session::over(transport, settings.clone(), random_ids());
        Ok(Self { link, session, relayed: None, is_allocated: false })
    }
}

/// All clients.
pub(super) struct Fleet {
    pub(super) flows: Vec<Flow>,
    pub(super) server: SocketAddr,
    road: Road,
    settings: Settings,
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
    batch: ReceiveBatch<u32>,
    events: VecDeque<(usize, Event)>,
    timers_due: Instant,
    /// Permissions, channels or allocations that could not be kept.
    pub(super) lost_renewals: u64,
    /// Streams that broke.
    pub(super) lost_streams: u64,
}

/// What a fleet does with application data: the flow it came to, the data, and when.
pub(super) trait Sink: FnMut(usize, Received<'_>, Instant) {}
impl<F: FnMut(usize, Received<'_>, Instant)> Sink for F {}

impl Fleet {
    /// Opens a link for each client.
    pub(super) fn open(server: SocketAddr, road: Road, count: usize, settings: &Settings) -> Result<Self, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut flows = Vec::with_capacity(count);
        for index in 0..count {
            flows.push(Flow::open(&epoll, index, server, &road, settings)?);
        }
        Ok(Self {
            flows,
            server,
            road,
            settings: settings.clone(),
            epoll,
            ready: Vec::with_capacity(READY),
            batch: ReceiveBatch::new(),
            events: VecDeque::new(),
            timers_due: Instant::now(),
            lost_renewals: 0,
            lost_streams: 0,
        })
    }

    /// Makes one request for each flow and waits for all answers. The first that fails ends it, and is the result.
    pub(super) fn request_all(
        &mut self,
        request: impl Fn(usize) -> Request,
        mut done: impl FnMut(&mut Flow, Outcome),
    ) -> Result<(), LoadError> {
        let (mut started, mut finished) = (0, 0);
        let mut moves = 0;
        while finished < self.flows.len() {
            while started < self.flows.len() && started - finished < CONCURRENCY {
                self.request(started, request(started));
                started += 1;
            }
            self.turn(TIMER_PACE, &mut |_, _, _| {})?;
            while let Some((flow, event)) = self.events.pop_front() {
                match event {
                    Event::Done(_, Ok(outcome)) => {
                        done(&mut self.flows[flow], outcome);
                        finished += 1;
                    }
                    // The server still has an allocation of an earlier client with the same port: RFC 8656 section 7.4
                    // asks to take another one.
                    Event::Done(_, Err(Error::Rejected { method: Method::ALLOCATE, code, .. }))
                        if code == ErrorCode::ALLOCATION_MISMATCH && moves < MOVES * self.flows.len() =>
                    {
                        moves += 1;
                        self.flows[flow] = Flow::open(&self.epoll, flow, self.server, &self.road, &self.settings)?;
                        self.request(flow, request(flow));
                    }
                    Event::Done(_, Err(error)) => {
                        return Err(LoadError::Setup { flow: flow + 1, of: self.flows.len(), error });
                    }
                    Event::RenewalFailed(..) => self.lost_renewals += 1,
                    // There are no TCP allocations.
                    Event::ConnectionAttempt(_) => {}
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, flow: usize, request: Request) {
        self.flows[flow].session.request(request, Instant::now());
        self.settle(flow);
    }

    /// Ends all allocations, also those that are only being made, without insisting: those that are not ended expire.
    pub(super) fn release(&mut self) {
        // What is asked for in pieces ends in pieces.
        let end = Instant::now() + RELEASE + RELEASE_EACH * self.flows.len() as u32;
        // A request that is still under way may make an allocation yet.
        let settled = Instant::now() + RELEASE / 2;
        while Instant::now() < settled && !self.flows.iter().all(|flow| flow.session.is_idle()) {
            if self.turn(TIMER_PACE, &mut |_, _, _| {}).is_err() {
                return;
            }
        }
        self.events.clear();
        let allocated: Vec<usize> = (0..self.flows.len()).filter(|flow| self.flows[*flow].is_allocated).collect();
        let release = Request::Refresh { lifetime: Some(Duration::ZERO), family: None };
        let (mut started, mut finished) = (0, 0);
        while finished < allocated.len() && Instant::now() < end {
            while started < allocated.len() && started - finished < CONCURRENCY {
                self.request(allocated[started], release.clone());
                started += 1;
            }
            if self.turn(TIMER_PACE, &mut |_, _, _| {}).is_err() {
                return;
            }
            finished += self.events.drain(..).filter(|(_, event)| matches!(event, Event::Done(..))).count();
        }
    }

    /// Asks the server whether it still knows the first client; [`Fleet::is_forgotten`] has the answer later.
    pub(super) fn ask_whether_known(&mut self) {
        self.request(0, Request::Refresh { lifetime: None, family: None });
    }

    /// Whether the server has said that it knows nothing of an allocation that it has given (437).
    ///
    /// Forgets all other events, and counts what was lost.
    pub(super) fn is_forgotten(&mut self) -> bool {
        let mut forgotten = false;
        for (_, event) in self.events.drain(..) {
            let error = match event {
                Event::RenewalFailed(_, error) => {
                    self.lost_renewals += 1;
                    error
                }
                Event::Done(_, Err(error)) => error,
                Event::Done(_, Ok(_)) | Event::ConnectionAttempt(_) => continue,
            };
            forgotten |= error.code() == Some(ErrorCode::ALLOCATION_MISMATCH);
        }
        forgotten
    }

    /// Waits for packets, at most so long, and takes all that are there.
    pub(super) fn turn(&mut self, wait: Duration, sink: &mut impl Sink) -> io::Result<()> {
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for at in 0..self.ready.len() {
            let flow = self.ready[at].data.u64() as u32;
            if let Link::Stream(_) = self.flows[flow as usize].link {
                self.take_stream(flow as usize, sink)?;
                continue;
            }
            let fd = self.flows[flow as usize].link.as_fd();
            // One call for each socket: what does not fit is reported again. An error is about an earlier datagram.
            let _ = self.batch.receive(fd, flow);
            if self.batch.is_full() {
                self.take(sink);
            }
        }
        self.take(sink);
        let now = Instant::now();
        if now >= self.timers_due {
            self.timers_due = now + TIMER_PACE;
            for flow in 0..self.flows.len() {
                let session = &mut self.flows[flow].session;
                if session.poll_timeout().is_some_and(|due| due <= now) {
                    session.handle_timeout(now);
                    self.settle(flow);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, sink: &mut impl Sink) {
        if self.batch.is_empty() {
            return;
        }
        let now = Instant::now();
        for datagram in self.batch.iter().filter(|datagram| datagram.source == self.server) {
            let flow = datagram.socket as usize;
            let session = &mut self.flows[flow].session;
            match session.handle_datagram(datagram.payload, now) {
                Some(data) => sink(flow, data, now),
                None => settle(&mut self.flows[flow], flow, self.server, &mut self.events),
            }
        }
        self.batch.clear();
    }

    /// Takes all messages of a stream that is ready, and writes what had to wait.
    fn take_stream(&mut self, index: usize, sink: &mut impl Sink) -> io::Result<()> {
        let now = Instant::now();
        let Flow { link: Link::Stream(stream), session, .. } = &mut self.flows[index] else { return Ok(()) };
        let mut taken = stream.work();
        while taken.is_ok() {
            match stream.pipe.next_message() {
                Ok(Some(message)) => {
                    if let Some(data) = session.handle_datagram(message, now) {
                        sink(index, data, now);
                    }
                }
                Ok(None) => break,
                Err(error) => taken = Err(error),
            }
        }
        if let Err(error) = taken {
            return self.lose(index, &error);
        }
        self.settle(index);
        Ok(())
    }

    /// A stream broke: nothing is heard of it any more.
    fn lose(&mut self, index: usize, why: &io::Error) -> io::Result<()> {
        let flow = &mut self.flows[index];
        if flow.session.lost().is_none() {
            flow.session.handle_lost(&why.to_string(), Instant::now());
            epoll::delete(&self.epoll, &flow.link)?;
            self.lost_streams += 1;
        }
        self.settle(index);
        Ok(())
    }

    /// Has epoll say when a stream takes what it has no room for now.
    pub(super) fn watch(&mut self, index: usize) -> io::Result<()> {
        let flow = &mut self.flows[index];
        match &mut flow.link {
            Link::Stream(stream) if flow.session.lost().is_none() => stream.watch(&self.epoll, index),
            _ => Ok(()),
        }
    }

    /// Sends a packet of a client that has a stream. `false` if there was no room for it.
    pub(super) fn send(&mut self, index: usize, packet: &[u8]) -> io::Result<bool> {
        let flow = &mut self.flows[index];
        let Link::Stream(stream) = &mut flow.link else { return Ok(false) };
        if flow.session.lost().is_some() {
            return Ok(false);
        }
        match stream.send(packet) {
            Ok(sent) => {
                self.watch(index)?;
                Ok(sent)
            }
            Err(error) => {
                self.lose(index, &error)?;
                Ok(false)
            }
        }
    }

    /// Whether the first client waits for an answer.
    pub(super) fn is_asking(&self) -> bool {
        self.flows.first().is_some_and(|flow| !flow.session.is_idle())
    }

    fn settle(&mut self, flow: usize) {
        settle(&mut self.flows[flow], flow, self.server, &mut self.events);
        // Of a stream, epoll must know whether something waits; an error comes again with the next thing that is sent.
        let _ = self.watch(flow);
    }
}

/// Sends what a session wants to send, and keeps what has happened to it.
fn settle(flow: &mut Flow, index: usize, server: SocketAddr, events: &mut VecDeque<(usize, Event)>) {
    while let Some(message) = flow.session.poll_transmit() {
        // What the kernel refuses is sent again by the session's timer; and a stream that breaks says so to epoll too.
        let _ = match &mut flow.link {
            Link::Udp(socket) => send_one(socket, None, server, IpFields::ORIGINATED, &message),
            Link::Stream(stream) => stream.post(&message),
        };
    }
    while let Some(event) = flow.session.poll_event() {
        flow.is_allocated |= matches!(event, Event::Done(_, Ok(Outcome::Allocated(_))));
        events.push_back((index, event));
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::thread;

    use hairpin_client::AllocateOptions;
    use hairpin_proto::stun::attribute::{Lifetime, XorMappedAddress, XorRelayedAddress};
    use hairpin_proto::stun::{Class, Message, MessageBuilder};

    use super::*;

    /// A server that answers Allocate requests and says to which source ports it gave an allocation.
    fn server(refusals: usize, answers: usize) -> (SocketAddr, thread::JoinHandle<Vec<SocketAddr>>) {
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let address = socket.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut sources = Vec::new();
            let mut buffer = [0; 500];
            for count in 0..answers {
                let (length, source) = socket.recv_from(&mut buffer).unwrap();
                let id = Message::parse(&buffer[..length]).unwrap().transaction_id();
                let mut answer = Vec::new();
                if count < refusals {
                    MessageBuilder::error(&mut answer, Method::ALLOCATE, id, ErrorCode::ALLOCATION_MISMATCH)
                        .finish(false);
                } else {
                    MessageBuilder::new(&mut answer, Class::Success, Method::ALLOCATE, id)
                        .with(&XorRelayedAddress(address))
                        .with(&XorMappedAddress(source))
                        .with(&Lifetime(600))
                        .finish(false);
                }
                sources.push(source);
                socket.send_to(&answer, source).unwrap();
            }
            sources
        });
        (address, thread)
    }

    fn allocate(server: SocketAddr) -> (Fleet, Result<(), LoadError>) {
        let mut fleet = Fleet::open(server, Road::Udp(server.ip()), 1, &Settings::default()).unwrap();
        let result = fleet.request_all(
            |_| Request::Allocate(AllocateOptions::default()),
            |flow, outcome| {
                if let Outcome::Allocated(allocation) = outcome {
                    flow.relayed = allocation.relayed.first().copied();
                }
            },
        );
        (fleet, result)
    }

    #[test]
    fn a_port_that_the_server_still_knows_is_replaced() {
        let (address, server) = server(2, 3);
        let (fleet, result) = allocate(address);
        result.unwrap();
        let ports = server.join().unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2], "{ports:?}");
        assert_eq!(fleet.flows[0].relayed, Some(address));
        assert_eq!(fleet.flows[0].link.local(), ports[2]);
    }

    #[test]
    fn a_server_that_was_started_anew_knows_nobody() {
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        let mut fleet =
            Fleet::open(socket.local_addr().unwrap(), Road::Udp([127, 0, 0, 1].into()), 1, &Settings::default())
                .unwrap();
        for (code, forgotten) in [(None, false), (Some(ErrorCode::ALLOCATION_MISMATCH), true)] {
            fleet.ask_whether_known();
            let mut buffer = [0; 500];
            let (length, source) = socket.recv_from(&mut buffer).unwrap();
            let id = Message::parse(&buffer[..length]).unwrap().transaction_id();
            let mut answer = Vec::new();
            match code {
                None => MessageBuilder::new(&mut answer, Class::Success, Method::REFRESH, id).with(&Lifetime(600)),
                Some(code) => MessageBuilder::error(&mut answer, Method::REFRESH, id, code),
            }
            .finish(false);
            socket.send_to(&answer, source).unwrap();
            fleet.turn(Duration::from_secs(5), &mut |_, _, _| {}).unwrap();
            assert_eq!(fleet.is_forgotten(), forgotten, "{code:?}");
        }
    }

    #[test]
    fn a_server_that_knows_every_port_is_given_up() {
        let (address, server) = server(usize::MAX, MOVES + 1);
        let (_, result) = allocate(address);
        assert!(matches!(result, Err(LoadError::Setup { flow: 1, of: 1, .. })), "{result:?}");
        assert_eq!(server.join().unwrap().len(), MOVES + 1);
    }
}
