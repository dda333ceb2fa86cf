//! TCP, plain or with TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use hairpin_proto::address::Transport;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Failure, Route};
use crate::error::Error;
use crate::pipe::Pipe;
use crate::tls::Tls;

/// Data waits while so much is on its way to the socket: a server that takes nothing slows its client down.
const ROOM: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct StreamLink {
    socket: TcpStream,
    pipe: Mutex<Pipe>,
    /// There is more to write than the task knows.
    pushed: Notify,
    /// There is room for data again, or never will be.
    room: Notify,
    /// Why nothing will come or go any more.
    lost: OnceLock<String>,
}

impl StreamLink {
    pub(super) async fn open(route: &Route) -> Result<Self, Error> {
        let (socket, pipe) = connect(route).await?;
        Ok(Self { socket, pipe: Mutex::new(pipe), pushed: Notify::new(), room: Notify::new(), lost: OnceLock::new() })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn alpn(&self) -> Option<Vec<u8>> {
        self.pipe().alpn().map(<[u8]>::to_vec)
    }

    pub(super) fn post(&self, message: &[u8]) {
        let mut pipe = self.pipe();
        pipe.push(message);
        // An error comes again, to the task, which knows what to do.
        let _ = pipe.flush(&mut Nonblocking(&self.socket));
        self.pushed.notify_one();
    }

    pub(super) async fn send(&self, message: &[u8]) -> Result<(), Error> {
        loop {
            let mut room = pin!(self.room.notified());
            // From here on no notice is missed.
            room.as_mut().enable();
            if let Some(why) = self.lost.get() {
                return Err(Error::ConnectionLost(why.clone()));
            }
            {
                let mut pipe = self.pipe();
                if pipe.waiting() < ROOM {
                    pipe.push(message);
                    // An error comes again, to the task, which knows what to do.
                    let _ = pipe.flush(&mut Nonblocking(&self.socket));
                    self.pushed.notify_one();
                    return Ok(());
                }
            }
            room.await;
        }
    }

    pub(super) async fn receive(&self, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        self.next_message(buffer).await.map_err(|error| {
            let why = self.lost.get_or_init(|| error.to_string()).clone();
            self.room.notify_waiters();
            Failure::Lost(why)
        })
    }

    async fn next_message(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let interest = {
                let mut pipe = self.pipe();
                if let Some(message) = pipe.next_message()? {
                    buffer.clear();
                    buffer.extend_from_slice(message);
                    return Ok(());
                }
                if pipe.wants_write() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
            };
            tokio::select! {
                ready = self.socket.ready(interest) => {
                    ready?;
                    self.work()?;
                }
                () = self.pushed.notified() => {}
            }
        }
    }

    fn work(&self) -> io::Result<()> {
        let mut pipe = self.pipe();
        pipe.fill(&mut Nonblocking(&self.socket))?;
        pipe.flush(&mut Nonblocking(&self.socket))?;
        if pipe.waiting() < ROOM {
            self.room.notify_waiters();
        }
        Ok(())
    }

    fn pipe(&self) -> MutexGuard<'_, Pipe> {
        // A panic elsewhere is reported there; the pipe is whole between any two calls.
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, and agrees upon TLS if the route says so.
pub(crate) async fn connect(route: &Route) -> Result<(TcpStream, Pipe), Error> {
    let tls = match (route.transport, &route.tls) {
        (Transport::Tls, Some(options)) => Some(Tls::new(options, route.server.ip())?),
        (Transport::Tls, None) => return Err(Error::Tls("no options say whom to trust".to_owned())),
        _ => None,
    };
    let connecting = async {
        let socket = if route.server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(local) = route.local {
            socket.bind(local)?;
        }
        let socket = socket.connect(route.server).await.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => Error::Unreachable,
            _ => Error::Io(error),
        })?;
        // Every message is written whole, and none shall wait for the next.
        socket.set_nodelay(true)?;
        let mut pipe = Pipe::new(tls.as_ref())?;
        shake_hands(&socket, &mut pipe).await.map_err(|error| Error::Tls(error.to_string()))?;
        Ok((socket, pipe))
    };
    timeout(route.patience, connecting).await.unwrap_or(Err(Error::NotConnected(route.patience)))
}

async fn shake_hands(socket: &TcpStream, pipe: &mut Pipe) -> io::Result<()> {
    while pipe.is_handshaking() {
        pipe.flush(&mut Nonblocking(socket))?;
        let interest = if pipe.wants_write() { Interest::WRITABLE } else { Interest::READABLE };
        if socket.ready(interest).await?.is_readable() {
            pipe.fill(&mut Nonblocking(socket))?;
            // Says so if the server has closed the connection.
            if pipe.is_handshaking() {
                pipe.next_message()?;
            }
        }
    }
    Ok(())
}

/// What the pipe reads and writes: a socket of tokio's, without waiting.
pub(crate) struct Nonblocking<'s>(pub(crate) &'s TcpStream);

impl Read for Nonblocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
