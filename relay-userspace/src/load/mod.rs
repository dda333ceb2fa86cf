//! `hairpin load`: measures a TURN server, any, by doing to it what clients do.
//!
//! 1. [`setup`](self) makes the allocations, permissions and channels, through the sessions of `hairpin-client`;
//! 2. packets are sent at the asked pace, each with a stamp: run, flow, sequence number, time;
//! 3. what comes back is counted against what was sent, and the result is a [`Report`].
//!
//! One thread does all of it. In echo mode a second one is the peer, and one sleeps until Ctrl-C.

mod args;
pub mod blast;
mod drops;
mod echo;
mod fleet;
mod interrupt;
mod link;
mod meter;
mod pacer;
mod progress;
mod pulse;
mod report;
mod servers;
mod setup;
mod stamp;
mod traffic;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

pub use self::args::{Args, Carrier, Direction, EchoPeerArgs, Family, Mode, Transport};
use self::drops::receive_buffer_drops;
pub use self::pulse::Lost;
pub use self::report::{Latency, Report, ServerLost};
use self::servers::Run;
use hairpin_proto::stun::ErrorCode;

use crate::cli::usage_error;
use crate::net::{SocketError, UdpSocket};

/// Why a run could not take place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing answers at the server's address.
    #[error("{0} does not answer a Binding request")]
    NoAnswer(SocketAddr),
    /// The server's host says that nothing listens there.
    #[error("no server listens on {0}")]
    NoServer(SocketAddr),
    /// This host does not know how to reach the server.
    #[error("cannot send to {0}: {1}")]
    NoRoute(SocketAddr, io::Error),
    /// The server refused what a client needs.
    #[error("client {flow} of {of}: {error}{}", hint(error))]
    Setup {
        /// Which client, counted from 1.
        flow: usize,
        /// How many there are.
        of: usize,
        /// What happened.
        error: hairpin_client::Error,
    },
    /// The server gave a relayed address of another family than it was asked for.
    #[error("the server gave a relayed address of the other IP version; choose with --family")]
    OtherFamily,
    /// The peer has no address that the relay could send to.
    #[error("this host has no route to the relayed address {0}; name an address with --peer-address")]
    NoWayBack(IpAddr),
    /// DNS says nothing, or nothing good, of the server.
    #[error("{0}")]
    Unresolved(hairpin_client::Error),
    /// TLS cannot be had as it was asked for.
    #[error("{0}")]
    Tls(hairpin_client::Error),
    /// A socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What to do about a refusal that has one cause as a rule.
fn hint(error: &hairpin_client::Error) -> &'static str {
    match error {
        hairpin_client::Error::Rejected { code: ErrorCode::FORBIDDEN, .. } => {
            "; the relay denies this peer (of hairpin: see --allow-peer)"
        }
        _ => "",
    }
}

/// Measures a server and prints the result. Fails when nothing came back, or when the server was lost on the way.
pub fn run(args: &Args) -> ExitCode {
    if let Err(message) = args.check() {
        return usage_error(&message);
    }
    if args.blast {
        return run_blast(args);
    }
    let report = match measure(args) {
        Ok(report) => report,
        Err(error) => return failure(&error),
    };
    if let Err(error) = show(args, &report) {
        return failure(&error);
    }
    if let Some(lost) = report.server_lost {
        return failure(&format!("the server {} was lost {lost}", report.server));
    }
    if report.packets_received == 0 {
        return failure(&"nothing came back");
    }
    ExitCode::SUCCESS
}

fn run_blast(args: &Args) -> ExitCode {
    let run = match servers::candidates(args) {
        // Frames are sent blindly: there is no second try.
        Ok(candidates) => candidates[0],
        Err(error) => return failure(&error),
    };
    let report = match blast::measure(run) {
        Ok(report) => report,
        Err(error) => return failure(&error),
    };
    if let Err(error) = show(args, &report) {
        return failure(&error);
    }
    if let Some(lost) = report.server_lost {
        return failure(&format!("the server {} was lost {lost}", report.server));
    }
    if report.packets_received == 0 { failure(&"nothing came back") } else { ExitCode::SUCCESS }
}

fn show<R: Serialize + fmt::Display>(args: &Args, report: &R) -> serde_json::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Reflects datagrams until the process is stopped.
pub fn run_echo_peer(args: &EchoPeerArgs) -> ExitCode {
    let socket = match UdpSocket::listener(args.listen, false) {
        Ok(socket) => socket,
        Err(error) => return failure(&error),
    };
    println!("reflecting on {}", socket.local());
    match echo::reflect(&socket, &AtomicBool::new(false), &AtomicU64::new(0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("hairpin: {error}");
    ExitCode::FAILURE
}

/// Does a whole run.
pub fn measure(args: &Args) -> Result<Report, LoadError> {
    allow_many_files();
    let (ready, run) = servers::first_that_serves(args, setup::prepare)?;
    measure_ready(run, ready)
}

fn measure_ready(run: Run<'_>, mut ready: setup::Ready) -> Result<Report, LoadError> {
    let before = processor_time();
    let traffic = match traffic::run(run, &mut ready, random_run()) {
        Ok(traffic) => traffic,
        Err(error) => {
            ready.fleet.release();
            return Err(error.into());
        }
    };
    let cpu = processor_time().saturating_sub(before);

    let sockets = ready.fleet.flows.iter().filter_map(|flow| flow.link.udp());
    let receive_buffer_drops = receive_buffer_drops(sockets.chain(ready.reflector.iter().map(echo::Reflector::socket)));
    if traffic.lost.is_none() {
        ready.fleet.release();
    }
    Ok(report_of(run, &ready, &traffic, &Measured { cpu, receive_buffer_drops }))
}

/// What was measured beside the traffic.
struct Measured {
    cpu: Duration,
    receive_buffer_drops: Option<u64>,
}

#[allow(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
fn report_of(run: Run<'_>, ready: &setup::Ready, traffic: &traffic::Traffic, measured: &Measured) -> Report {
    let Run { args, server, transport } = run;
    let meter = &traffic.meter;
    let seconds = traffic.duration.as_secs_f64();
    let lost = traffic.sent.saturating_sub(meter.received);
    let bits = (args.payload * 8) as f64;
    let sent_per_second = traffic.sent as f64 / seconds;
    let received_per_second = meter.received as f64 / seconds;
    Report {
        server,
        mode: args.mode,
        method: args.method,
        family: run.family(),
        transport,
        allocations: args.allocations,
        allocations_per_second: f64::from(args.allocations) / ready.allocating.as_secs_f64(),
        server_lost: traffic.lost,
        lost_renewals: ready.fleet.lost_renewals,
        payload_bytes: args.payload,
        rate: args.rate(),
        seconds,
        packets_sent: traffic.sent,
        packets_received: meter.received,
        packets_lost: lost,
        loss: if traffic.sent == 0 { 0.0 } else { lost as f64 / traffic.sent as f64 },
        packets_reordered: meter.reordered,
        packets_duplicated: meter.duplicated,
        packets_refused: traffic.refused,
        packets_skipped: traffic.skipped,
        packets_reflected: ready.reflector.as_ref().map(echo::Reflector::reflected),
        receive_buffer_drops: measured.receive_buffer_drops,
        sent_packets_per_second: sent_per_second,
        received_packets_per_second: received_per_second,
        sent_bits_per_second: sent_per_second * bits,
        received_bits_per_second: received_per_second * bits,
        latency_microseconds: (meter.received > 0).then(|| Latency {
            p50: meter.latency_micros(50.0),
            p90: meter.latency_micros(90.0),
            p99: meter.latency_micros(99.0),
            max: meter.longest_micros(),
        }),
        cpu_seconds: measured.cpu.as_secs_f64(),
    }
}

/// Each client has a socket. Where even the hard limit is too low, opening them says so.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.try_into().unwrap_or_default()
}

fn random_run() -> u32 {
    let mut run = [0; 4];
    // Any number would do: it only tells runs apart.
    let _ = SystemRandom::new().fill(&mut run);
    u32::from_be_bytes(run)
}
