//! Connections that many questions share, and that are made anew when one of them has found them broken.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::StoreError;

/// A few connections to one server, each for as many questions at once as come.
pub(crate) struct Connections<C> {
    slots: Box<[Slot<C>]>,
    next: AtomicUsize,
}

/// A server that can be connected to.
pub(crate) trait Connect: Sync {
    /// A connection to it.
    type Connection: Send + Sync;

    /// Connects.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, StoreError>> + Send;

    /// Whether a connection can be used for another question, as far as is known.
    fn is_good(&self, connection: &Self::Connection) -> bool;
}

struct Slot<C> {
    connection: Mutex<Option<Arc<C>>>,
    /// Held by the one that connects; others wait for what it gets.
    connecting: tokio::sync::Mutex<()>,
}

/// A connection for one question. Whoever gives the question up, or fails, gives the connection up with it.
pub(crate) struct Lease<'a, C> {
    slot: &'a Slot<C>,
    connection: Arc<C>,
    is_new: bool,
    is_sound: bool,
}

impl<C> Connections<C> {
    pub(crate) fn new(count: usize) -> Self {
        let slot = |_| Slot { connection: Mutex::new(None), connecting: tokio::sync::Mutex::default() };
        Self { slots: (0..count.max(1)).map(slot).collect(), next: AtomicUsize::new(0) }
    }

    /// A connection that is still good, or a new one.
    pub(crate) async fn lease(&self, server: &impl Connect<Connection = C>) -> Result<Lease<'_, C>, StoreError> {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        if let Some(lease) = slot.held(|connection| server.is_good(connection)) {
            return Ok(lease);
        }
        let _turn = slot.connecting.lock().await;
        if let Some(lease) = slot.held(|connection| server.is_good(connection)) {
            return Ok(lease);
        }
        let connection = Arc::new(server.connect().await?);
        *slot.lock() = Some(Arc::clone(&connection));
        Ok(Lease { slot, connection, is_new: true, is_sound: false })
    }
}

impl<C> Slot<C> {
    fn held(&self, is_good: impl Fn(&C) -> bool) -> Option<Lease<'_, C>> {
        let connection = self.lock().clone().filter(|connection| is_good(connection))?;
        Some(Lease { slot: self, connection, is_new: false, is_sound: false })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<C>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Lease<'_, C> {
    /// Says how the question ended. Nothing: the server had ended a connection that nobody used, and the question is to
    /// be asked over another.
    pub(crate) fn settle<T>(mut self, result: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
        // An answer says that the connection is good, whether it is liked or not.
        self.is_sound = matches!(result, Ok(_) | Err(StoreError::Entry { .. }));
        let is_stale = !self.is_new && matches!(result, Err(StoreError::Unreachable(_)));
        (!is_stale).then_some(result)
    }
}

impl<C> Deref for Lease<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> Drop for Lease<'_, C> {
    fn drop(&mut self) {
        if !self.is_sound {
            let mut held = self.slot.lock();
            if held.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, &self.connection)) {
                *held = None;
            }
        }
    }
}
