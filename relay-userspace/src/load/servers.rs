//! Which server is measured: of those that a name stands for (RFC 5928), the first that serves.

use hairpin_client::resolution::Target;
use hairpin_client::{Error, Resolver, Transport as Wire};
use hairpin_proto::stun::ErrorCode;
use tokio::runtime::Builder;

use super::LoadError;
use super::args::{Args, Transport};

/// Tries one server after the other. Which one it is, is said where a name leaves that open.
pub(super) fn first_that_serves<R>(
    args: &Args,
    try_one: impl Fn(&Args) -> Result<R, LoadError>,
) -> Result<(R, Args), LoadError> {
    let mut candidates = candidates(args)?.into_iter().peekable();
    loop {
        let candidate = candidates.next().expect("there is one at least, and the last one ends it");
        let is_open = args.server.socket().is_none();
        if is_open {
            eprintln!("hairpin: {}: trying {} over {}", args.server, candidate.server(), candidate.transport().name());
        }
        match try_one(&candidate) {
            Ok(ready) => return Ok((ready, candidate)),
            Err(error) if candidates.peek().is_some() && is_of_this_server(&error) => {
                eprintln!("hairpin: {error}");
            }
            Err(error) => return Err(error),
        }
    }
}

/// The same run with each of the servers, in the order in which they are tried; at least one.
pub(super) fn candidates(args: &Args) -> Result<Vec<Args>, LoadError> {
    if let Some(address) = args.server.socket() {
        let transport = match args.transport() {
            Transport::Udp => Wire::Udp,
            Transport::Tcp => Wire::Tcp,
            Transport::Tls => Wire::Tls,
        };
        return Ok(vec![args.at(Target { transport, address })]);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let targets = runtime.block_on(async {
        let resolver = match args.dns {
            Some(server) => Resolver::at(server),
            None => Resolver::of_system(),
        };
        resolver?.targets(&args.uri(), &args.transports()).await
    });
    let targets = targets.map_err(LoadError::Unresolved)?;
    Ok(targets.into_iter().map(|target| args.at(target)).collect())
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
