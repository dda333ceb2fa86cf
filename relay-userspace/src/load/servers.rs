//! Which server is measured: of those that a name stands for (RFC 5928), the first that serves.

use std::net::SocketAddr;

use hairpin_client::resolution::Target;
use hairpin_client::{Error, Resolver, Transport as Wire};
use hairpin_proto::stun::ErrorCode;
use tokio::runtime::Builder;

use super::LoadError;
use super::args::{Args, Family, Transport};

/// What is measured: the options, and one of the servers that `--server` stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) args: &'a Args,
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
}

impl Run<'_> {
    /// The family of relayed addresses.
    pub(super) fn family(&self) -> Family {
        self.args.family(self.server)
    }
}

/// Tries one server after the other. Which one it is, is said where a name leaves that open.
pub(super) fn first_that_serves<R>(
    args: &Args,
    try_one: impl Fn(Run<'_>) -> Result<R, LoadError>,
) -> Result<(R, Run<'_>), LoadError> {
    let mut candidates = candidates(args)?.into_iter().peekable();
    loop {
        let candidate = candidates.next().expect("there is one at least, and the last one ends it");
        let is_open = args.server.socket().is_none();
        if is_open {
            eprintln!("hairpin: {}: trying {} over {}", args.server, candidate.server, candidate.transport.name());
        }
        match try_one(candidate) {
            Ok(ready) => return Ok((ready, candidate)),
            Err(error) if candidates.peek().is_some() && is_of_this_server(&error) => {
                eprintln!("hairpin: {error}");
            }
            Err(error) => return Err(error),
        }
    }
}

/// A run with each of the servers, in the order in which they are tried; at least one.
pub(super) fn candidates(args: &Args) -> Result<Vec<Run<'_>>, LoadError> {
    let transports = args.transports();
    if let Some(server) = args.server.socket() {
        return Ok(transports.into_iter().take(1).map(|transport| Run { args, server, transport }).collect());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let targets = runtime.block_on(async {
        let resolver = match args.dns {
            Some(server) => Resolver::at(server),
            None => Resolver::of_system(),
        };
        let spoken: Vec<_> = transports.into_iter().map(Wire::from).collect();
        resolver?.targets(&args.uri(), &spoken).await
    });
    let run = |Target { transport, address }| Some(Run { args, server: address, transport: Transport::of(transport)? });
    Ok(targets.map_err(LoadError::Unresolved)?.into_iter().filter_map(run).collect())
}

/// Whether another server may do better: this one is not there, has no room, or sends its clients away.
fn is_of_this_server(error: &LoadError) -> bool {
    match error {
        LoadError::NoAnswer(_) | LoadError::NoServer(_) | LoadError::NoRoute(..) => true,
        LoadError::Setup { error, .. } => {
            matches!(
                error,
                Error::TryAlternate { .. } | Error::Timeout(_) | Error::Unreachable | Error::ConnectionLost(_)
            ) || error.code() == Some(ErrorCode::INSUFFICIENT_CAPACITY)
        }
        _ => false,
    }
}
