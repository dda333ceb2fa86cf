//! A service manager as far as a relay sees one: where it is told something, and what it starts relays with.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use hairpin_tests::lab::relay::{PASSWORD, USER, binary};
use hairpin_tests::lab::{Folder, Namespace};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One that is told how a relay is.
pub(crate) struct Supervisor {
    socket: UnixDatagram,
    folder: Folder,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        let folder = Folder::new("manager");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("the folder is ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        let supervisor = Self { socket, folder };
        supervisor.configure("");
        supervisor
    }

    /// The relay's configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("hairpin.toml")
    }

    /// Writes the relay's configuration file.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.file(), text).expect("the folder is ours");
    }

    /// The command that starts a relay with two shards, which tells us.
    pub(crate) fn serve(&self, host: &Namespace) -> Command {
        let mut command = serve(host);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("HAIRPIN_CONFIG", self.file());
        command
    }

    /// What is told next.
    pub(crate) fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("nothing is told: {error}"));
        String::from_utf8(buffer[..length].to_vec()).expect("it is text")
    }

    /// Waits until something is told that is meant, and returns everything up to it.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let end = std::time::Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        loop {
            heard.push(self.hear());
            if heard.last().is_some_and(|last| is_meant(last)) {
                return heard;
            }
            assert!(std::time::Instant::now() < end, "{what} was not told, but {heard:#?}");
        }
    }

    /// What is told from now on, for so long.
    pub(crate) fn listen(&self, time: Duration) -> Vec<String> {
        let end = std::time::Instant::now() + time;
        let mut heard = Vec::new();
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left)).expect("the time is not zero");
            let mut buffer = [0; 4096];
            let Ok(length) = self.socket.recv(&mut buffer) else { break };
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        heard
    }
}

/// The command that starts a relay with two shards in userspace.
pub(crate) fn serve(host: &Namespace) -> Command {
    with_options(host.command(binary()))
}

/// The same, behind a shell that tells it that sockets which were opened for this process are for it.
pub(crate) fn serve_passed(host: &Namespace, count: u8, names: &str) -> Command {
    let mut command = host.command("sh");
    command.args(["-c", r#"LISTEN_PID=$$ exec "$@""#, "sh"]).arg(binary());
    let mut command = with_options(command);
    command.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names);
    command
}

fn with_options(mut command: Command) -> Command {
    command.args(["serve", "--listen", "127.0.0.1:3478", "--xdp", "off", "--relay-address", "127.0.0.1"]);
    command.args(["--user", &format!("{USER}:{PASSWORD}"), "--shards", "2"]);
    command
}
