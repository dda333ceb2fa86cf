//! Connections that are closed while their other end may still be sending.
//!
//! A socket that is closed with something unread in it resets its connection, and then the other end may never get to read
//! what it was sent last. So of connections that carry bytes (RFC 6062) what still comes is read, and thrown away.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::Stream;

/// How long the other end may take to notice.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many connections of a shard may be waited for. Further ones are closed at once.
const PLACES: usize = 1024;
/// How much is read at once.
const READ: usize = 4096;

/// The connections of one shard that are waited for; each has a clone of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lingering(Arc<()>);

impl Lingering {
    /// Closes a connection, over which all was written that is to be.
    pub(super) fn close(&self, stream: Stream) {
        stream.finish();
        if Arc::strong_count(&self.0) > PLACES {
            return;
        }
        if let Ok(stream) = stream.into_tokio() {
            let place = self.clone();
            tokio::spawn(async move {
                // Whichever way it ends, it is over.
                let _ = timeout(PATIENCE, drain(stream)).await;
                drop(place);
            });
        }
    }
}

/// Reads to the end.
async fn drain(stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; READ];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}
