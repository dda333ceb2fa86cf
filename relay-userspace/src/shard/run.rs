//! The loop of a shard.

use std::io;
use std::time::Instant;

use tokio::sync::mpsc;

use super::Command;
use super::associations::Arena;
use super::connection::{Connection, StreamBuffer};
use super::socket::Socket;
use super::sockets::Ready;
use super::state::{State, now};
use super::visitors::{Moving, PassedOn};
use crate::clock::monotonic_nanoseconds;
use crate::net::{ReceiveBatch, SendBatch, watch};

/// How many rounds of receiving and sending come before timers and commands have their turn.
const ROUNDS: usize = 16;
/// How many steps of TLS handshakes are taken in a round. One may take a millisecond, for which everybody else waits.
const HANDSHAKES: usize = 1;
/// How many commands are done before sockets have their turn.
const COMMANDS: usize = 64;

pub(super) struct Shard {
    state: State,
    ready: Vec<Ready>,
    receive: ReceiveBatch<Socket>,
    streams: StreamBuffer,
    arena: Arena,
    send: SendBatch<Socket>,
}

impl Shard {
    pub(super) fn new(state: State) -> Self {
        Self {
            arena: Arena::new(state.associations.are_possible()),
            state,
            ready: Vec::new(),
            receive: ReceiveBatch::new(),
            streams: StreamBuffer::new(),
            send: SendBatch::new(),
        }
    }

    /// Serves until told to shut down.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> io::Result<()> {
        let poll = watch(self.state.sockets.poll_fd()?)?;
        loop {
            let deadline = self.state.next_deadline();
            tokio::select! {
                readable = poll.readable() => {
                    if !self.rounds()? {
                        readable?.clear_ready();
                    }
                    // Under load the runtime's own timer would come late.
                    if self.state.next_deadline().is_some_and(|due| due <= Instant::now()) {
                        self.handle_timeout();
                    }
                }
                () = sleep_until(deadline) => self.handle_timeout(),
                command = commands.recv() => {
                    let mut next = command;
                    for _ in 0..COMMANDS {
                        match next {
                            Some(Command::Shutdown) | None => {
                                self.state.shut_down();
                                return Ok(());
                            }
                            Some(command) => self.command(command),
                        }
                        match commands.try_recv() {
                            Ok(command) => next = Some(command),
                            Err(_) => break,
                        }
                    }
                    self.state.write_out();
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.state.batch_time = monotonic_nanoseconds();
        match command {
            Command::Ask(question) => {
                question(&mut self.state);
                self.arena.provide(self.state.associations.are_possible());
            }
            Command::Adopt(connection) => self.adopt(*connection),
            Command::Datagram(datagram) => self.passed_on(&datagram),
            Command::AdoptAssociation(moving) => self.adopt_association(*moving),
            Command::Guest(client, shard) => self.state.welcome(client, shard),
            Command::NoGuest(client, as_of) => self.state.dismiss(&client, as_of),
            Command::Answered(number, answered) => self.state.answered(number, *answered),
            Command::Learned(learned) => {
                let (question, answer) = *learned;
                self.state.server.learn(now(), &question, answer);
            }
            Command::Shutdown => {}
        }
    }

    /// Ends all whose time has come, and lets those go on that have rested.
    fn handle_timeout(&mut self) {
        self.state.batch_time = monotonic_nanoseconds();
        self.state.handle_timeout(&mut self.streams);
        while let Some(socket) = self.state.next_woken(&mut self.streams) {
            self.frames(socket);
        }
        self.state.write_out();
    }

    /// Relays what is there. Returns whether more may be waiting.
    fn rounds(&mut self) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            self.state.sockets.ready(&mut self.ready)?;
            if self.ready.is_empty() {
                return Ok(false);
            }
            self.state.batch_time = monotonic_nanoseconds();
            let mut handshakes = HANDSHAKES;
            for at in 0..self.ready.len() {
                let ready = self.ready[at];
                match ready.socket {
                    Socket::Acceptor(at) => self.state.accept_clients(at),
                    Socket::Connection(..) => self.connection(ready, &mut handshakes),
                    Socket::Peer(id) | Socket::Joined(id) => self.state.peer_ready(id, ready, &mut self.streams),
                    Socket::Relay(..) if self.state.sockets.relay_listener(ready.socket).is_some() => {
                        self.state.accept_peers(ready.socket);
                    }
                    Socket::Listener(_) | Socket::Relay(..) | Socket::Media(..) => self.datagrams(ready),
                }
            }
            if !self.receive.is_empty() {
                self.relay();
            }
            self.state.write_out();
        }
        Ok(true)
    }

    /// Receives the datagrams that wait at a socket.
    fn datagrams(&mut self, Ready { socket, has_errors, .. }: Ready) {
        // A socket may have been closed by what came in before it in this round.
        let Some(fd) = self.state.sockets.fd(socket) else { return };
        // Other errors are about some datagram sent before, and gone with this.
        if let Err(error) = self.receive.receive(fd, socket)
            && error.raw_os_error() == Some(libc::ECONNABORTED)
        {
            self.state.lose(socket);
        }
        if has_errors {
            self.state.take_errors(socket);
        }
        if self.receive.is_full() {
            self.relay();
        }
    }

    /// Passes the received batch through the engine.
    fn relay(&mut self) {
        let now = now();
        let mut plaintexts = self.arena.start();
        let mut outbox = self.send.start();
        for datagram in self.receive.iter() {
            self.state.relay(now, &datagram, &mut outbox, &mut plaintexts);
        }
        self.state.flush(&mut outbox);
        self.receive.clear();
    }

    /// Reads and writes what a client's connection has to give and takes.
    fn connection(&mut self, ready: Ready, handshakes: &mut usize) {
        let socket = ready.socket;
        if ready.is_writable {
            self.state.write(socket);
        }
        if !ready.is_readable {
            return;
        }
        let is_handshaking = self.state.connections.get(socket).is_some_and(Connection::is_handshaking);
        // The others are told of again in the next round.
        if is_handshaking && *handshakes == 0 {
            return;
        }
        if self.state.receive(socket, &mut self.streams) {
            self.frames(socket);
        }
        // What has not come far enough to be answered has cost little.
        if is_handshaking && self.state.connections.get(socket).is_some_and(Connection::has_shaken) {
            *handshakes -= 1;
        }
    }

    /// Passes the messages that a connection has given through the engine.
    fn frames(&mut self, socket: Socket) {
        let mut outbox = self.send.start();
        self.state.frames(now(), socket, self.streams.bytes(), &mut outbox);
        self.state.flush(&mut outbox);
    }

    /// Passes a datagram that has reached another shard through the engine.
    fn passed_on(&mut self, datagram: &PassedOn) {
        self.state.taken();
        let mut plaintexts = self.arena.start();
        let mut outbox = self.send.start();
        let PassedOn { client, ip, payload, .. } = datagram;
        self.state.client_datagram(now(), *client, payload, *ip, &mut outbox, &mut plaintexts);
        self.state.flush(&mut outbox);
        self.state.settle(datagram);
    }

    /// Takes over an association from another shard, with its last message.
    fn adopt_association(&mut self, moving: Moving) {
        let Some((client, message)) = self.state.adopt_association(moving) else { return };
        let mut plaintexts = self.arena.start();
        let mut outbox = self.send.start();
        self.state.message(now(), client, &message, &mut outbox, &mut plaintexts);
        self.state.flush(&mut outbox);
    }

    /// Takes over a connection from another shard.
    fn adopt(&mut self, mut connection: Connection) {
        connection.resume(&mut self.streams);
        if let Some(socket) = self.state.adopt(connection) {
            self.frames(socket);
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
