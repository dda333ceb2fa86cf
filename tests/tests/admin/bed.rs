//! A relay with its admin interface at a place of the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hairpin_tests::lab::http::{Answer, Connection, ask, tcp, unix};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Folder, Namespace, Relay};

/// Where it listens over TCP.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9641);

/// A relay, and where it is asked.
pub(crate) struct Bed<'n> {
    pub(crate) host: &'n Namespace,
    pub(crate) relay: Relay<'n>,
    pub(crate) socket: PathBuf,
    folder: Folder,
}

impl<'n> Bed<'n> {
    /// Starts one with these variables, which stand for options.
    pub(crate) fn new(host: &'n Namespace, environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new("admin");
        let socket = folder.path().join("run/admin.sock");
        let relay = Relay::start_with(host, serve(host, &socket).envs(environment.iter().copied()));
        Self { host, relay, socket, folder }
    }

    /// Asks over the Unix socket.
    pub(crate) fn unix(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        ask(unix(&self.socket), method, path, headers, body).all()
    }

    /// Asks over TCP.
    pub(crate) fn tcp(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        ask(self.connection(), method, path, headers, body).all()
    }

    /// A connection over TCP.
    pub(crate) fn connection(&self) -> Box<dyn Connection> {
        tcp(self.host, ADMIN)
    }

    /// The command `hairpin` with these arguments, which asks this relay.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(binary());
        command.args(arguments).env("HAIRPIN_ADMIN_SOCKET", &self.socket);
        command
    }

    /// A file with this text.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A client of the relay, with a password that may be wrong.
    pub(crate) fn client(&self, password: &str) -> Client {
        let [local, server] = [0, PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Client::new(self.host, local, server, USER, password)
    }

    /// A client that has an allocation with a permission and a channel.
    pub(crate) fn allocated(&self) -> Client {
        let mut client = self.client(PASSWORD);
        client.allocate().expect("an allocation");
        client.bind_channel(0x4000, SocketAddr::from(([198, 51, 100, 9], 9))).expect("a channel");
        client
    }
}

/// The command that starts a relay with its socket at a path.
pub(crate) fn serve(host: &Namespace, socket: &Path) -> Command {
    let mut command = host.command(binary());
    command.args(["serve", "--listen", "127.0.0.1:3478", "--xdp", "off", "--relay-address", "127.0.0.1"]);
    command.args(["--allow-peer", "198.51.100.0/24"]);
    command.args(["--auth-secret", "north", "--user", &format!("{USER}:{PASSWORD}"), "--shards", "2"]);
    command.env("HAIRPIN_ADMIN_SOCKET", socket);
    command
}
