//! Which servers a name stands for, and in which order they are tried (RFC 5928 section 3).
//!
//! Nobody is asked here: [`targets`] says what it has to know, whoever drives it finds that out, and calls it again. So the
//! order is a function of the records alone, and of the lots that RFC 2782 draws among them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use hairpin_proto::address::Transport;

use crate::uri::{Host, ServerUri};

/// How much is asked, and how many servers are found, for one URI: whoever writes the records decides about neither.
const MAX_QUESTIONS: usize = 64;
const MAX_TARGETS: usize = 64;

/// A server that can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// What is spoken there.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
}

/// What DNS is to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// NAPTR records of a name.
    Naptr(String),
    /// SRV records of a name.
    Srv(String),
    /// A and AAAA records of a name.
    Addresses(String),
}

/// A NAPTR record (RFC 3403), as far as S-NAPTR (RFC 3958) has a use for it: it has no regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    /// Lower ones are tried first.
    pub order: u16,
    /// Likewise, among those of one order.
    pub preference: u16,
    /// `s`, `a`, or empty.
    pub flags: String,
    /// Such as `RELAY:turn.udp`.
    pub services: String,
    /// Where to go on.
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower ones are tried first.
    pub priority: u16,
    /// How often it is the first among those of one priority.
    pub weight: u16,
    /// The port of the service.
    pub port: u16,
    /// The host, or `.`: there is no such service.
    pub target: String,
}

/// What DNS has said. An empty list: there is nothing.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// By the name that was asked for, as the next ones.
    pub naptr: HashMap<String, Vec<Naptr>>,
    /// SRV records.
    pub srv: HashMap<String, Vec<Srv>>,
    /// Addresses.
    pub addresses: HashMap<String, Vec<IpAddr>>,
}

/// Why there are no targets (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// This has to be known first.
    Ask(Question),
    /// What the URI asks for is not spoken here.
    NoTransport,
}

/// Draws a number from 0 to this one.
pub type Lots<'l> = &'l mut dyn FnMut(u32) -> u32;

/// The servers behind a URI, in the order in which they are tried. `spoken` are transports, the one that is liked best first.
/// None at all: DNS knows of no such server.
pub fn targets(
    uri: &ServerUri,
    spoken: &[Transport],
    answers: &Answers,
    lots: Lots<'_>,
) -> Result<Vec<Target>, Unresolved> {
    let fits = |transport: &Transport| match uri.transport {
        Some(named) => *transport == named,
        None => matches!(transport, Transport::Tls | Transport::Dtls) == uri.secure,
    };
    let spoken: Vec<_> = spoken.iter().copied().filter(fits).collect();
    if spoken.is_empty() {
        return Err(Unresolved::NoTransport);
    }
    let mut search = Search { uri, answers, lots, followed: HashSet::new(), found: Vec::new() };
    match (&uri.host, uri.port) {
        (Host::Ip(ip), port) => search.found(&spoken, &[*ip], port.unwrap_or(uri.default_port())),
        (Host::Name(name), Some(port)) => search.by_addresses(&spoken, name, port)?,
        (Host::Name(name), None) => search.by_name(&spoken, name)?,
    }
    Ok(search.found)
}

impl Answers {
    /// What is known of a name; once enough has been asked, nothing more is.
    fn known<'a, R>(
        &self,
        records: &'a HashMap<String, Vec<R>>,
        name: &str,
        question: fn(String) -> Question,
    ) -> Result<&'a [R], Unresolved> {
        match records.get(name) {
            Some(records) => Ok(records),
            None if self.naptr.len() + self.srv.len() + self.addresses.len() >= MAX_QUESTIONS => Ok(&[]),
            None => Err(Unresolved::Ask(question(name.to_owned()))),
        }
    }
}

struct Search<'s, 'l> {
    uri: &'s ServerUri,
    answers: &'s Answers,
    lots: Lots<'l>,
    /// Ways that NAPTR records have shown: what is behind them is found already, or is about to be.
    followed: HashSet<(Transport, &'s str, &'s str)>,
    /// Each once.
    found: Vec<Target>,
}

impl<'s> Search<'s, '_> {
    /// A name alone: NAPTR unless the transport is named, else SRV, else its addresses.
    fn by_name(&mut self, spoken: &[Transport], name: &str) -> Result<(), Unresolved> {
        if self.uri.transport.is_none() && self.by_naptr(spoken, name)? {
            return Ok(());
        }
        let mut has_any = false;
        for transport in spoken {
            has_any |= self.by_srv(*transport, &service(*transport, name))?;
        }
        if has_any { Ok(()) } else { self.by_addresses(spoken, name, self.uri.default_port()) }
    }

    /// S-NAPTR: the first records say which transport goes first, and among equals the client does. Says whether any of them is
    /// about TURN over what is spoken.
    fn by_naptr(&mut self, spoken: &[Transport], name: &str) -> Result<bool, Unresolved> {
        let records = self.answers.known(&self.answers.naptr, name, Question::Naptr)?;
        let mut ways: Vec<(u16, u16, usize, &'s Naptr)> = Vec::new();
        for record in records {
            let offered = protocols(&record.services);
            let rank = |transport: &Transport| spoken.iter().position(|other| other == transport);
            ways.extend(offered.iter().filter_map(rank).map(|rank| (record.order, record.preference, rank, record)));
        }
        ways.sort_by_key(|(order, preference, rank, _)| (*order, *preference, *rank));
        for (_, _, rank, record) in &ways {
            let (transport, next) = (spoken[*rank], record.replacement.as_str());
            if !self.followed.insert((transport, &record.flags, next)) {
                continue;
            }
            match record.flags.to_ascii_lowercase().as_str() {
                "s" => drop(self.by_srv(transport, next)?),
                "a" => self.by_addresses(&[transport], next, self.uri.default_port())?,
                "" => drop(self.by_naptr(&[transport], next)?),
                _ => {}
            }
        }
        Ok(!ways.is_empty())
    }

    /// Says whether there are records. If there are some that say that there is no service, there is nothing.
    fn by_srv(&mut self, transport: Transport, name: &str) -> Result<bool, Unresolved> {
        let records = self.answers.known(&self.answers.srv, name, Question::Srv)?;
        for record in drawn(records, self.lots) {
            if record.target != "." {
                self.by_addresses(&[transport], &record.target, record.port)?;
            }
        }
        Ok(!records.is_empty())
    }

    fn by_addresses(&mut self, spoken: &[Transport], name: &str, port: u16) -> Result<(), Unresolved> {
        if self.found.len() < MAX_TARGETS {
            let ips = self.answers.known(&self.answers.addresses, name, Question::Addresses)?;
            self.found(spoken, ips, port);
        }
        Ok(())
    }

    fn found(&mut self, spoken: &[Transport], ips: &[IpAddr], port: u16) {
        for transport in spoken {
            for ip in ips {
                let target = Target { transport: *transport, address: SocketAddr::new(*ip, port) };
                if self.found.len() < MAX_TARGETS && !self.found.contains(&target) {
                    self.found.push(target);
                }
            }
        }
    }
}

/// Where SRV records of a service are (RFC 5766 section 17, RFC 7350 section 4.6).
fn service(transport: Transport, name: &str) -> String {
    let service = match transport {
        Transport::Udp => "_turn._udp",
        Transport::Tcp => "_turn._tcp",
        Transport::Tls => "_turns._tcp",
        Transport::Dtls => "_turns._udp",
    };
    format!("{service}.{name}")
}

/// The transports that a NAPTR record offers (RFC 5928 section 5, RFC 7350 section 4.6).
fn protocols(services: &str) -> Vec<Transport> {
    let mut tags = services.split(':');
    if !tags.next().is_some_and(|tag| tag.eq_ignore_ascii_case("RELAY")) {
        return Vec::new();
    }
    let transport = |tag: &str| match tag.to_ascii_lowercase().as_str() {
        "turn.udp" => Some(Transport::Udp),
        "turn.tcp" => Some(Transport::Tcp),
        "turn.tls" => Some(Transport::Tls),
        "turn.dtls" => Some(Transport::Dtls),
        _ => None,
    };
    tags.filter_map(transport).collect()
}

/// SRV records in the order of RFC 2782: by priority, and by lot among equals, those of greater weight more often first.
fn drawn<'r>(records: &'r [Srv], lots: Lots<'_>) -> Vec<&'r Srv> {
    let mut left: Vec<&Srv> = records.iter().collect();
    // Those without weight come first in the list, so that a lot of zero can fall on them.
    left.sort_by_key(|record| (record.priority, Reverse(record.weight == 0)));
    let mut order = Vec::new();
    while let Some(first) = left.first() {
        let equals = left.iter().take_while(|record| record.priority == first.priority).count();
        let total = left[..equals].iter().map(|record| u32::from(record.weight)).sum();
        let lot = lots(total);
        let mut sum = 0;
        let at = left[..equals].iter().position(|record| {
            sum += u32::from(record.weight);
            lot <= sum
        });
        order.push(left.remove(at.unwrap_or(0)));
    }
    order
}
