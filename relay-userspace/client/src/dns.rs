//! Asking DNS which servers there are.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::address::Transport;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::resolution::{Answers, Naptr, Question, Srv, Target, Unresolved, targets};
use crate::uri::ServerUri;

/// How long a name server may take, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// How long all that is asked about one URI may take.
const ENOUGH: Duration = Duration::from_secs(10);

/// Somebody who knows DNS.
#[derive(Debug)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// Asks the name servers of this host (`/etc/resolv.conf`).
    pub fn of_system() -> Result<Self, Error> {
        let builder = TokioResolver::builder_tokio()
            .map_err(|error| Error::Dns("/etc/resolv.conf".to_owned(), error.to_string()))?;
        Self::build(builder)
    }

    /// Asks this name server.
    pub fn at(server: SocketAddr) -> Result<Self, Error> {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        config.connections.iter_mut().for_each(|connection| connection.port = server.port());
        let config = ResolverConfig::from_name_servers(vec![config]);
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, Error> {
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = ATTEMPTS;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Who comes back because its server is gone must not be sent to where it was.
        options.cache_size = 0;
        builder.build().map(Self).map_err(|error| Error::Dns("a resolver".to_owned(), error.to_string()))
    }

    /// The servers behind a URI, in the order in which they are tried; at least one. What nobody can tell counts as nothing, and
    /// is an error only if it leaves no server.
    pub async fn targets(&self, uri: &ServerUri, spoken: &[Transport]) -> Result<Vec<Target>, Error> {
        let mut answers = Answers::default();
        let mut failed = None;
        let end = Instant::now() + ENOUGH;
        loop {
            let question = match targets(uri, spoken, &answers, &mut lot) {
                Ok(targets) if targets.is_empty() => {
                    return Err(failed.unwrap_or_else(|| Error::NoServer(uri.to_string())));
                }
                Ok(targets) => return Ok(targets),
                Err(Unresolved::NoTransport) => return Err(Error::OtherTransport(uri.to_string())),
                Err(Unresolved::Ask(question)) => question,
            };
            if let Err(error) = self.ask(question, end, &mut answers).await {
                failed.get_or_insert(error);
            }
        }
    }

    /// Has an answer for the question in any case, and says why it is empty if nobody could tell.
    async fn ask(&self, question: Question, end: Instant, answers: &mut Answers) -> Result<(), Error> {
        match question {
            Question::Naptr(name) => {
                let (records, told) = self.look_up(&name, RecordType::NAPTR, end).await;
                let records = records.into_iter().filter_map(|data| match data {
                    RData::NAPTR(record) => naptr(&record),
                    _ => None,
                });
                answers.naptr.insert(name, records.collect());
                told
            }
            Question::Srv(name) => {
                let (records, told) = self.look_up(&name, RecordType::SRV, end).await;
                let records = records.into_iter().filter_map(|data| match data {
                    RData::SRV(record) => Some(Srv {
                        priority: record.priority,
                        weight: record.weight,
                        port: record.port,
                        target: plain(&record.target.to_ascii()),
                    }),
                    _ => None,
                });
                answers.srv.insert(name, records.collect());
                told
            }
            Question::Addresses(name) => {
                let found = timeout_at(end, self.0.lookup_ip(absolute(&name))).await;
                let (addresses, told) = records(&name, found, |found| found.iter().collect());
                answers.addresses.insert(name, addresses);
                told
            }
        }
    }

    async fn look_up(&self, name: &str, kind: RecordType, end: Instant) -> (Vec<RData>, Result<(), Error>) {
        let found = timeout_at(end, self.0.lookup(absolute(name), kind)).await;
        records(name, found, |found| found.answers().iter().map(|record| record.data.clone()).collect())
    }
}

/// That there is nothing is an answer; that nobody could tell, or not in time, is none.
fn records<F, R>(
    name: &str,
    found: Result<Result<F, NetError>, Elapsed>,
    of: impl FnOnce(F) -> Vec<R>,
) -> (Vec<R>, Result<(), Error>) {
    let why = match found {
        Ok(Ok(found)) => return (of(found), Ok(())),
        Ok(Err(error)) if error.is_no_records_found() => return (Vec::new(), Ok(())),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("name servers take more than {} seconds", ENOUGH.as_secs()),
    };
    (Vec::new(), Err(Error::Dns(name.to_owned(), why)))
}

/// Without the search list of the host.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// Without the dot at the end, unless it is all there is.
fn plain(name: &str) -> String {
    if name == "." { name.to_owned() } else { name.trim_end_matches('.').to_owned() }
}

fn naptr(record: &hickory_resolver::proto::rr::rdata::NAPTR) -> Option<Naptr> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // S-NAPTR knows no regular expressions (RFC 3958 section 2.2.3).
    record.regexp.is_empty().then(|| Naptr {
        order: record.order,
        preference: record.preference,
        flags: text(&record.flags),
        services: text(&record.services),
        replacement: plain(&record.replacement.to_ascii()),
    })
}

/// A number from 0 to this one.
fn lot(most: u32) -> u32 {
    let mut bytes = [0; 8];
    // Without random numbers it is always the first, which is as good as any.
    let _ = SystemRandom::new().fill(&mut bytes);
    (u64::from_be_bytes(bytes) % (u64::from(most) + 1)) as u32
}
