//! Sockets that were bound for whoever brings the token (RFC 8656 section 7.2, EVEN-PORT with the R bit).
//!
//! The token may come back on another five-tuple, and so to another shard: the sockets are shared by all of them. Locked
//! once for an Allocate request that reserves or redeems, never for a packet.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hairpin_proto::stun::attribute::ReservationToken;
use hashbrown::HashMap;

use crate::net::UdpSocket;

/// All reserved sockets of the relay.
#[derive(Clone, Debug, Default)]
pub struct Reservations(Arc<Mutex<HashMap<ReservationToken, UdpSocket>>>);

impl Reservations {
    pub(super) fn keep(&self, token: ReservationToken, socket: UdpSocket) {
        self.lock().insert(token, socket);
    }

    pub(super) fn take(&self, token: ReservationToken) -> Option<UdpSocket> {
        self.lock().remove(&token)
    }

    /// How many sockets are kept.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Where each of them is bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().values().map(UdpSocket::local).collect()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ReservationToken, UdpSocket>> {
        // Every step on the table is a single insert or remove: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
