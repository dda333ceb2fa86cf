//! Coturn's clients: independent of everything here, and judged by what they print.
//!
//! `turnutils_uclient` exits with 0 even when nothing came back, so that its exit code alone means nothing. It makes an
//! allocation to probe with, then those it uses; without `-c` these come in pairs, by EVEN-PORT and a reservation. It
//! idles for some seconds before it sends.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use super::process::{self, Finished, Process};

/// The port of [`EchoPeer`]; the next one is taken too, for RTCP.
pub const PEER_PORT: u16 = 3480;
/// It takes about seven seconds, or twelve when something is lost.
const PATIENCE: Duration = Duration::from_secs(40);

/// What `turnutils_uclient` counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Messages sent, by all its clients.
    pub sent: u64,
    /// Messages that came back.
    pub received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes that came back.
    pub bytes_received: u64,
    /// What it calls lost.
    pub lost: u64,
    /// What it could not send.
    pub dropped: u64,
}

/// `turnutils_peer`: sends back what it gets.
#[derive(Debug)]
pub struct EchoPeer(#[expect(dead_code, reason = "runs as long as it is kept")] Process);

impl EchoPeer {
    /// Starts it and waits until it listens.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Self {
        let mut command = namespace.command("turnutils_peer");
        for address in addresses {
            command.args(["-L", &address.to_string()]);
        }
        let process = Process::spawn(&mut command);
        let end = Instant::now() + Duration::from_secs(10);
        while namespace.udp_sockets(PEER_PORT) + namespace.udp_sockets(PEER_PORT + 1) < 2 * addresses.len() {
            assert!(Instant::now() < end, "turnutils_peer does not listen: {}", process.wait(Duration::ZERO));
            thread::sleep(Duration::from_millis(20));
        }
        Self(process)
    }
}

/// Runs `turnutils_uclient` with these arguments, blank separated.
pub fn uclient(namespace: &Namespace, arguments: &str) -> Finished {
    uclient_for(namespace, arguments, PATIENCE)
}

/// The same with another limit.
pub fn uclient_for(namespace: &Namespace, arguments: &str, limit: Duration) -> Finished {
    process::run_for(namespace.command("turnutils_uclient").args(arguments.split_whitespace()), limit)
}

/// Runs `turnutils_stunclient`, which asks for a Binding, against the standard port.
pub fn stunclient(namespace: &Namespace, server: IpAddr) -> Finished {
    process::run_for(namespace.command("turnutils_stunclient").arg(server.to_string()), Duration::from_secs(10))
}

/// Runs `turnutils_natdiscovery` with these arguments, blank separated.
pub fn natdiscovery(namespace: &Namespace, arguments: &str) -> Finished {
    let mut command = namespace.command("turnutils_natdiscovery");
    process::run_for(command.args(arguments.split_whitespace()), Duration::from_secs(20))
}

/// Runs `turnadmin`, which writes users and secrets into databases, outside of all namespaces.
///
/// # Panics
/// When it fails.
pub fn turnadmin(arguments: &[&str]) {
    let process = Process::spawn(Command::new("turnadmin").args(arguments));
    let id = process.pid().as_raw_nonzero();
    process.wait(PATIENCE).expect_success();
    // It leaves a file for its log, which it has no option against.
    let prefix = format!("turn_{id}_");
    for folder in ["/var/log", "/var/tmp", "/tmp", "."] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Tally {
    /// What a finished `turnutils_uclient` counted; `None` when it did not get that far.
    pub fn of(finished: &Finished) -> Option<Self> {
        let (_, end) = finished.stdout.rsplit_once("start_mclient: tot_send_msgs=")?;
        // "40, tot_recv_msgs=40", "tot_send_bytes ~ 4000, tot_recv_bytes ~ 4000", "Total lost packets 0 (0.0%), total
        // send dropped 0 (0.0%)", each line with the seconds and the function in front.
        let after = |words: &str| -> Option<u64> {
            let (_, rest) = end.split_once(words)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        Some(Self {
            sent: after("")?,
            received: after("tot_recv_msgs=")?,
            bytes_sent: after("tot_send_bytes ~ ")?,
            bytes_received: after("tot_recv_bytes ~ ")?,
            lost: after("Total lost packets ")?,
            dropped: after("total send dropped ")?,
        })
    }

    /// Whether everything that was sent came back, and that was something.
    pub fn is_complete(&self) -> bool {
        let Self { sent, received, bytes_sent, bytes_received, lost, dropped } = *self;
        sent > 0 && bytes_sent > 0 && sent == received && bytes_sent == bytes_received && lost == 0 && dropped == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(stdout: &str) -> Finished {
        Finished { name: String::new(), status: None, stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn what_uclient_prints_is_read() {
        let report = "5: : start_mclient: msz=2, tot_send_msgs=9, tot_recv_msgs=8, tot_send_bytes ~ 7, tot_recv_bytes ~ 6\n\
                      6: : start_mclient: tot_send_msgs=40, tot_recv_msgs=39\n\
                      6: : start_mclient: tot_send_bytes ~ 4000, tot_recv_bytes ~ 3900\n\
                      6: : Total transmit time is 6\n\
                      6: : Total lost packets 1 (2.500000%), total send dropped 0 (0.000000%)\n";
        let tally = Tally::of(&finished(report)).unwrap();
        let expected = Tally { sent: 40, received: 39, bytes_sent: 4000, bytes_received: 3900, lost: 1, dropped: 0 };
        assert_eq!(tally, expected);
        assert!(!tally.is_complete());
        assert!(Tally { received: 40, bytes_received: 4000, lost: 0, ..tally }.is_complete());
        assert_eq!(Tally::of(&finished("0: : ERROR: Cannot complete Allocation\n")), None);
    }
}
