//! Keeping an allocation while the client's address changes (RFC 8016).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::link::Route;
use crate::request::{Outcome, Request};

impl Client {
    /// The ticket that the allocation was given, or its last Refresh; `None` if there is none.
    pub fn ticket(&self) -> Option<Vec<u8>> {
        self.shared.state().session.ticket().map(<[u8]>::to_vec)
    }

    /// Moves the allocation to another local address, by a Refresh from there with the ticket (RFC 8016 section 3.2), and
    /// returns its lifetime. If that fails, all is as it was. Before a stream breaks, not after: then the client is lost.
    pub async fn move_to(&self, local: SocketAddr) -> Result<Duration, Error> {
        let ticket = self.ticket().ok_or(Error::NoTicket)?;
        let before = self.shared.way();
        let route = Route { local: Some(local), ..before.route.clone() };
        self.shared.take_way(route).await?;
        // What the session keeps alive goes the new way at once: should the server not know that yet, it says so, and
        // the next renewal is in time.
        match self.ask(Request::Move { ticket }).await {
            Ok(Outcome::Refreshed(lifetime)) => Ok(lifetime),
            Ok(other) => unreachable!("a Refresh request has no outcome {other:?}"),
            Err(error) => {
                self.shared.return_to(Arc::clone(&before));
                Err(error)
            }
        }
    }
}
