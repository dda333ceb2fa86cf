//! A Redis server of a test's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::postgres::free_port;
use super::process::Process;
use super::{Folder, skip};

/// How long starting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Redis server of a test's own, on loopback and on a Unix socket. What is in it is saved when somebody asks for it, as
/// coturn does.
#[derive(Debug)]
pub struct RedisServer {
    folder: Folder,
    port: u16,
    /// What `redis-cli` needs to be let in.
    login: Vec<String>,
    options: Vec<String>,
    /// The network namespace that it is in, if it is not this one.
    namespace: Option<String>,
    ip: IpAddr,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts one. None, with a word why, if it is not installed. With `HAIRPIN_REQUIRE_ALL` set, that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_with(&[], |_, _| Vec::new())
    }

    /// Starts one with further options, made of a folder for files and of a free port; `login` is what `redis-cli` needs
    /// to be let in.
    pub fn start_with(login: &[&str], options: impl FnOnce(&Path, u16) -> Vec<String>) -> Option<Self> {
        Self::start_at(None, Ipv4Addr::LOCALHOST.into(), login, options)
    }

    /// Starts one in a network namespace, for everybody who reaches its address.
    pub fn start_in(namespace: &str, ip: IpAddr) -> Option<Self> {
        Self::start_at(Some(namespace.to_owned()), ip, &[], |_, _| vec!["--protected-mode".to_owned(), "no".to_owned()])
    }

    fn start_at(
        namespace: Option<String>,
        ip: IpAddr,
        login: &[&str],
        options: impl FnOnce(&Path, u16) -> Vec<String>,
    ) -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            return skip("redis-server is not installed");
        }
        let (folder, login) = (Folder::new("redis"), login.iter().map(|&word| word.to_owned()).collect());
        let options = options(folder.path(), free_port());
        let mut server = Self { folder, port: free_port(), login, options, namespace, ip, process: None };
        server.launch();
        Some(server)
    }

    /// The URL of a database, over TCP.
    pub fn url(&self, database: u32) -> String {
        format!("redis://{}/{database}", SocketAddr::new(self.ip, self.port))
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.file("socket")
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How coturn's programs name a database.
    pub fn connection_string(&self, database: u32) -> String {
        format!("ip=127.0.0.1 port={} dbname={database}", self.port)
    }

    /// Sends a command to the database with the number 0.
    pub fn command(&self, words: &[&str]) -> String {
        let output = self.cli(words);
        let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !told.starts_with("ERR"), "{words:?}: {told}{error}");
        told.trim_end().to_owned()
    }

    /// Ends it without a word. What was not saved is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, with what was saved.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Lets it hang: connections are there, and nothing is answered.
    pub fn hang(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    fn launch(&mut self) {
        let (port, socket) = (self.port.to_string(), self.socket().display().to_string());
        let folder = self.folder.path().display().to_string();
        let ip = self.ip.to_string();
        let mut arguments = match &self.namespace {
            None => vec!["redis-server"],
            Some(namespace) => vec!["ip", "netns", "exec", namespace, "redis-server"],
        };
        let program = Path::new(arguments.remove(0));
        arguments.extend(["--port", &port, "--bind", &ip, "--unixsocket", &socket, "--dir", &folder]);
        arguments.extend(["--save", "", "--daemonize", "no"]);
        arguments.extend(self.options.iter().map(String::as_str));
        let log = self.folder.file("log");
        let process = Process::start(None, program, &arguments, &log).expect("setpriv starts");
        self.process = Some(process);
        let start = Instant::now();
        while !String::from_utf8_lossy(&self.cli(&["PING"]).stdout).starts_with("PONG") {
            let log = || std::fs::read_to_string(self.folder.file("log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "Redis does not answer: {}", log());
            sleep(Duration::from_millis(20));
        }
    }

    fn cli(&self, words: &[&str]) -> Output {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).args(&self.login).arg("--no-auth-warning").args(words);
        command.output().expect("redis-cli is installed with the server")
    }
}
