//! A PostgreSQL server of a test's own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};

use super::process::Process;
use super::{Folder, skip};

/// How long starting may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who a server runs as: PostgreSQL refuses to be root.
const USER: &str = "postgres";

/// A PostgreSQL server of a test's own, on loopback and on a Unix socket, with a superuser `hairpin` whose password is
/// `north`.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    folder: Folder,
    port: u16,
    process: Option<Process>,
}

impl PostgresServer {
    /// Starts one. None, with a word why, if it is not installed. With `HAIRPIN_REQUIRE_ALL` set, that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| Vec::new())
    }

    /// Starts one with further settings (`name=value`); files that they name may be laid into the folder.
    pub fn start_with(settings: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let Some(programs) = programs() else { return skip("PostgreSQL's initdb is not installed") };
        let folder = Folder::new("pg");
        let mut server = Self { programs, folder, port: free_port(), process: None };
        Self::give(server.folder.path());
        fs::write(server.folder.file("password"), "north").expect("the folder is the test's own");
        Self::give(&server.folder.file("password"));
        server.run(
            "initdb",
            &[
                "--no-sync",
                "--username=hairpin",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                &format!("--pwfile={}", server.folder.file("password").display()),
                &server.data(),
            ],
        );
        let mut lines = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 40\n",
            server.port,
            server.folder.path().display()
        );
        for setting in settings(server.folder.path()) {
            lines.push_str(&setting);
            lines.push('\n');
        }
        for entry in fs::read_dir(server.folder.path()).expect("the folder is the test's own").flatten() {
            Self::give(&entry.path());
        }
        let file = server.folder.path().join("data/postgresql.conf");
        let settings = fs::read_to_string(&file).expect("initdb has written it");
        fs::write(&file, settings + &lines).expect("the folder is the test's own");
        server.launch();
        Some(server)
    }

    /// The URL of a database, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://hairpin:north@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a database, over the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        format!("postgres://hairpin:north@/{database}?host={}&port={}", self.folder.path().display(), self.port)
    }

    /// Where a file in its folder is.
    pub fn file(&self, name: &str) -> String {
        self.folder.file(name).display().to_string()
    }

    /// How coturn's programs name a database.
    pub fn connection_string(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} dbname={database} user=hairpin password=north", self.port)
    }

    /// Makes a database.
    pub fn create(&self, database: &str) {
        self.sql("postgres", &format!("create database {database}"));
    }

    /// Executes statements.
    pub fn sql(&self, database: &str, statements: &str) {
        let output = self.psql(database, &["-c", statements]);
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Executes a file.
    pub fn script(&self, database: &str, file: &Path) {
        let output = self.psql(database, &["-f", &file.display().to_string()]);
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Those that it has started would notice, after a while.
            process.signal_all(Signal::KILL);
            process.kill();
        }
    }

    /// Starts it again, with what was in it.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Lets it hang: connections are there, and nothing is answered.
    pub fn hang(&self) {
        if let Some(process) = &self.process {
            process.signal_all(Signal::STOP);
        }
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        if let Some(process) = &self.process {
            process.signal_all(Signal::CONT);
        }
    }

    fn launch(&mut self) {
        let (program, data) = (self.programs.join("postgres"), self.data());
        let log = self.folder.file("log");
        let start = Instant::now();
        loop {
            let user = is_root().then_some(USER);
            let mut process = Process::start(user, &program, &["-D", &data], &log).expect("setpriv starts");
            while !process.has_ended() {
                if self.psql("postgres", &["-c", "select 1"]).status.success() {
                    self.process = Some(process);
                    return;
                }
                assert!(start.elapsed() < PATIENCE, "PostgreSQL does not answer: {}", self.log());
                sleep(Duration::from_millis(50));
            }
            // Processes of the one before may not have ended yet.
            assert!(start.elapsed() < PATIENCE, "PostgreSQL does not start: {}", self.log());
            sleep(Duration::from_millis(100));
        }
    }

    fn psql(&self, database: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.connection_string(database)]).args(arguments);
        command.output().expect("psql is installed with the server")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let output = command.args(arguments).current_dir(self.folder.path()).output().expect("setpriv starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn data(&self) -> String {
        self.folder.file("data").display().to_string()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).unwrap_or_default()
    }

    /// What lies in the folder is the server's.
    fn give(path: &Path) {
        if is_root() {
            let id = Command::new("id").args(["-u", USER]).output().expect("id starts");
            let id = String::from_utf8_lossy(&id.stdout).trim().parse().expect("the package has made the user");
            chown(path, Some(id), None).expect("root may");
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal_all(Signal::CONT);
            // At once, with what it has started.
            process.signal(Signal::QUIT);
            process.wait();
        }
    }
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// Where the programs of the newest version are. Debian keeps them apart, and out of the way of a shell.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let folders = versions.map(|version| version.path().join("bin")).filter(|folder| folder.join("initdb").exists());
    folders.max()
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
