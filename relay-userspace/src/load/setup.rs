//! Before traffic: is there a server, which allocations does it give, who sends to whom.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hairpin_client::{AllocateOptions, Event, Outcome, Request, Session, Settings, Timing, Tls, random_ids};
use hairpin_common::wire::CHANNEL_MIN;

use super::LoadError;
use super::args::{Carrier, Mode, Transport};
use super::echo::Reflector;
use super::fleet::Fleet;
use super::link::Road;
use super::servers::Run;
use crate::net::source_address_towards;

/// How long a server has to show that it is there.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// A fleet that is ready to send.
pub(super) struct Ready {
    pub(super) fleet: Fleet,
    /// To whom each flow sends.
    pub(super) targets: Vec<SocketAddr>,
    /// The peer of this process, in echo mode without `--peer`.
    pub(super) reflector: Option<Reflector>,
    /// How long it took to make all allocations.
    pub(super) allocating: Duration,
}

/// The channel that every client uses.
pub(super) const CHANNEL: u16 = CHANNEL_MIN;

/// Makes allocations, permissions and channels.
pub(super) fn prepare(run: Run<'_>) -> Result<Ready, LoadError> {
    let Run { args, server, transport } = run;
    let road = match transport {
        Transport::Udp => Road::Udp(probe(server)?),
        Transport::Tcp => Road::Stream(None),
        Transport::Tls => Road::Stream(Some(Tls::new(&args.tls(), server.ip()).map_err(LoadError::Tls)?)),
    };
    let settings = Settings {
        credentials: Some(args.credentials()),
        software: Some("hairpin load".to_owned()),
        ..Settings::default()
    };
    let mut fleet = Fleet::open(server, road, args.allocations as usize, &settings)?;
    match set_up(run, &mut fleet) {
        Ok((targets, reflector, allocating)) => Ok(Ready { fleet, targets, reflector, allocating }),
        Err(error) => {
            // What was made before must not stand in the way of the next run for ten minutes.
            fleet.release();
            Err(error)
        }
    }
}

fn set_up(run: Run<'_>, fleet: &mut Fleet) -> Result<(Vec<SocketAddr>, Option<Reflector>, Duration), LoadError> {
    let (args, family) = (run.args, run.family().into());
    let start = Instant::now();
    let options = AllocateOptions { family: Some(family), ..AllocateOptions::default() };
    fleet.request_all(
        |_| Request::Allocate(options.clone()),
        |flow, outcome| {
            if let Outcome::Allocated(allocation) = outcome {
                flow.relayed = allocation.relayed_of(family);
            }
        },
    )?;
    let allocating = start.elapsed();

    let relayed: Vec<SocketAddr> =
        fleet.flows.iter().map(|flow| flow.relayed.ok_or(LoadError::OtherFamily)).collect::<Result<_, _>>()?;
    let (targets, reflector) = match (args.mode, args.peer) {
        (Mode::Pair, _) => ((0..relayed.len()).map(|flow| relayed[partner(flow)]).collect(), None),
        (Mode::Echo, Some(peer)) => (vec![peer; relayed.len()], None),
        (Mode::Echo, None) => {
            let ip = args.peer_address.or_else(|| source_address_towards(relayed[0].ip()));
            let reflector = Reflector::start(SocketAddr::new(ip.ok_or(LoadError::NoWayBack(relayed[0].ip()))?, 0))?;
            (vec![reflector.socket().local(); relayed.len()], Some(reflector))
        }
    };
    fleet.request_all(
        |flow| match args.method {
            Carrier::Channel => Request::ChannelBind { channel: CHANNEL, peer: targets[flow] },
            Carrier::Send => Request::CreatePermission(vec![targets[flow]]),
        },
        |_, _| {},
    )?;
    Ok((targets, reflector, allocating))
}

/// The flow at the other end of a pair.
pub(super) fn partner(flow: usize) -> usize {
    flow ^ 1
}

/// Asks the server for a sign of life, and finds out from which address this host reaches it.
pub(super) fn probe(server: SocketAddr) -> Result<IpAddr, LoadError> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server).map_err(|error| LoadError::NoRoute(server, error))?;
    let timing = Timing { attempts: 3, patience: 2, ..Timing::default() };
    let mut session = Session::new(Settings { timing, ..Settings::default() }, random_ids());
    let start = Instant::now();
    session.request(Request::Binding, start);
    let mut buffer = [0; 2048];
    while start.elapsed() < FIRST_ANSWER {
        while let Some(datagram) = session.poll_transmit() {
            socket.send(&datagram).map_err(|error| refusal(server, error))?;
        }
        match session.poll_event() {
            // Whatever it answers, it is there.
            Some(Event::Done(_, Ok(_) | Err(hairpin_client::Error::Rejected { .. }))) => {
                return Ok(socket.local_addr()?.ip());
            }
            Some(_) => break,
            None => {}
        }
        let now = Instant::now();
        let wait = session.poll_timeout().map_or(FIRST_ANSWER, |due| due.saturating_duration_since(now));
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match socket.recv(&mut buffer) {
            Ok(length) => drop(session.handle_datagram(&buffer[..length], Instant::now())),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Err(refusal(server, error)),
            Err(_) => session.handle_timeout(Instant::now()),
        }
    }
    Err(LoadError::NoAnswer(server))
}

fn refusal(server: SocketAddr, error: io::Error) -> LoadError {
    if error.kind() == ErrorKind::ConnectionRefused {
        LoadError::NoServer(server)
    } else {
        LoadError::NoRoute(server, error)
    }
}
