//! TURN servers on loopback, each with the user `u`, whose password is `p`.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hairpin_tests::lab::Certificate;

/// Which server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Hairpin,
    Coturn,
    /// A server of a few lines around pion's library, which is what there is of it.
    Pion,
    /// The library that eturnal and ejabberd are made with.
    Eturnal,
}

/// A running one; ends when dropped.
pub(crate) struct Server {
    process: Child,
    /// For UDP and TCP.
    plain: SocketAddr,
    secure: SocketAddr,
}

impl Kind {
    /// In results for scripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hairpin => "hairpin",
            Self::Coturn => "coturn",
            Self::Pion => "pion",
            Self::Eturnal => "eturnal",
        }
    }

    /// In results for people, with the package of Debian where that says which version.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Hairpin => "hairpin, in userspace",
            Self::Coturn => "coturn",
            Self::Pion => "pion (golang-github-pion-turn.v2-dev)",
            Self::Eturnal => "eturnal's library (erlang-p1-stun)",
        }
    }

    fn command(
        self,
        binary: &Path,
        certificate: &Certificate,
        plain: SocketAddr,
        secure: SocketAddr,
    ) -> Result<Command> {
        let mut command;
        match self {
            Self::Hairpin => {
                command = Command::new(binary);
                command.args(["serve", "--xdp", "off", "--admin", "off", "--admin-socket", "off"]);
                command.args(["--user", "u:p", "--allow-peer", "127.0.0.0/8"]);
                for (transport, address) in [("udp", plain), ("tcp", plain), ("tls", secure)] {
                    command.args(["--listen", &format!("{transport}:{address}")]);
                }
                command.arg("--certificate").arg(&certificate.file).arg("--private-key").arg(&certificate.private_key);
            }
            Self::Coturn => {
                command = Command::new("turnserver");
                command.args(["-n", "--no-cli", "--no-dtls", "-L", "127.0.0.1", "-E", "127.0.0.1", "-a"]);
                command.args(["-u", "u:p", "-r", "realm", "--allow-loopback-peers", "--log-file", "/dev/null"]);
                command.args(["-p", &plain.port().to_string(), "--tls-listening-port", &secure.port().to_string()]);
                command.arg("--cert").arg(&certificate.file).arg("--pkey").arg(&certificate.private_key);
                command.args(["--pidfile", "/dev/null"]);
            }
            Self::Pion => {
                command = Command::new(build_pion(binary)?);
                command.arg(plain.to_string());
            }
            Self::Eturnal => {
                command = Command::new("escript");
                command.arg(sources().join("stun.escript")).arg(plain.port().to_string());
            }
        }
        Ok(command)
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("others")
}

/// Compiles the server with Debian's Go and its packages, next to our own program.
fn build_pion(binary: &Path) -> Result<PathBuf> {
    let server = binary.with_file_name("pion-server");
    let mut go = Command::new("go");
    go.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode");
    let output =
        go.args([OsStr::new("build"), OsStr::new("-o"), server.as_os_str()]).arg(sources().join("pion/main.go"));
    let output = output.output().context("go (Debian's packages golang-go and golang-github-pion-turn.v2-dev)")?;
    ensure!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    Ok(server)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts one, and waits until it answers.
    pub(crate) fn start(kind: Kind, binary: &Path, certificate: &Certificate) -> Result<Self> {
        let (plain, secure) = (free_address()?, free_address()?);
        let mut command = kind.command(binary, certificate, plain, secure)?;
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.with_context(|| format!("starting {}", command.get_program().display()))?;
        let server = Self { process, plain, secure };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !answers(plain)? {
            ensure!(Instant::now() < deadline, "{} does not answer", command.get_program().display());
        }
        Ok(server)
    }

    /// Where clients of a transport reach it.
    pub(crate) fn address(&self, transport: &str) -> SocketAddr {
        if transport == "tls" { self.secure } else { self.plain }
    }

    pub(crate) fn cpu_nanoseconds(&self) -> Result<f64> {
        // utime and stime are fields 14 and 15; the name in field 2 has no spaces here. The unit is USER_HZ: 10 ms.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let ticks: f64 = stat.split(' ').skip(13).take(2).map(|field| field.parse().unwrap_or(0.0)).sum();
        Ok(ticks * 1e7)
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Whether a STUN server answers a Binding request.
fn answers(server: SocketAddr) -> Result<bool> {
    const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.send_to(&BINDING, server)?;
    Ok(socket.recv(&mut [0; 512]).is_ok())
}
