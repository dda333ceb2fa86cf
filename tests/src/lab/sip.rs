//! Phones (baresip), and the proxy of `deploy/examples/sip` between them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::folder::Folder;
use super::namespace::Namespace;
use super::process::{Finished, Process};

/// The port of SIP.
pub const PORT: u16 = 5060;
const PATIENCE: Duration = Duration::from_secs(20);
const PYTHON: &str = "/usr/bin/python3";
/// A tone goes out, without a sound card, and what comes in is heard by nobody.
const CONFIGURATION: &str = "\
poll_method epoll
sip_listen 0.0.0.0:5060
audio_source ausine,440
audio_player aubridge,nobody
audio_alert aubridge,nobody
ausrc_srate 48000
ausrc_channels 2
auplay_srate 48000
auplay_channels 1
audio_txmode poll
rtp_ports 10000-20000
rtp_stats yes
jitter_buffer_delay 5-10
module_path /usr/lib/baresip/modules
module g711.so
module ausine.so
module aubridge.so
module_tmp account.so
module_app menu.so
";

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    address: SocketAddr,
}

/// A phone that has registered.
#[derive(Debug)]
pub struct Phone {
    process: Process,
    _folder: Folder,
}

/// The packets that a phone has counted in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// RTP that it has sent.
    pub sent: u64,
    /// RTP that it has received.
    pub received: u64,
    /// RTP that it has missed.
    pub lost: u64,
}

impl Proxy {
    /// Starts it beside a relay, which it asks over the socket.
    pub fn start(namespace: &Namespace, address: SocketAddr, socket: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
        let mut command = namespace.command(PYTHON);
        command.args(["-u", "-B"]).arg(root.join("deploy/examples/sip/proxy.py"));
        command.args(["--listen", &address.to_string(), "--admin"]).arg(socket);
        let mut process = Process::spawn(&mut command);
        wait("the proxy listens", &mut process, |_| namespace.udp_sockets(address.port()) > 0);
        Self { process, address }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

impl Phone {
    /// Starts one that answers every call, and waits until it has registered.
    pub fn register(namespace: &Namespace, proxy: &Proxy, name: &str, has_ice: bool) -> Self {
        Self::start(namespace, proxy, name, has_ice, &[])
    }

    /// Starts one that calls a user at once, and waits until the call is there.
    pub fn call(namespace: &Namespace, proxy: &Proxy, name: &str, has_ice: bool, whom: &str) -> Self {
        let dial = format!("/dial sip:{whom}@{}", proxy.address);
        let mut phone = Self::start(namespace, proxy, name, has_ice, &["-e", &dial]);
        wait("the call is answered", &mut phone.process, |output| output.contains("Call established"));
        phone
    }

    fn start(namespace: &Namespace, proxy: &Proxy, name: &str, has_ice: bool, arguments: &[&str]) -> Self {
        let folder = Folder::new("phone");
        let [module, account] = if has_ice { ["module ice.so\n", ";medianat=ice"] } else { [""; 2] };
        let at = proxy.address;
        let account =
            format!("<sip:{name}@{at}>;outbound=\"sip:{at}\";regint=60;answermode=auto;audio_codecs=pcmu{account}\n");
        let files =
            [("config", format!("{CONFIGURATION}{module}")), ("accounts", account), ("contacts", String::new())];
        for (file, text) in files {
            fs::write(folder.path().join(file), text).expect("the folder is ours");
        }
        let mut command = namespace.command("baresip");
        let mut process = Process::spawn(command.arg("-f").arg(folder.path()).args(arguments));
        wait("the phone has registered", &mut process, |output| output.contains("200 OK"));
        Self { process, _folder: folder }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Hangs up, and ends.
    pub fn hang_up(self) -> Packets {
        self.process.signal(Signal::TERM);
        Packets::of(&self.process.wait(PATIENCE))
    }

    /// Waits until the other side has hung up.
    pub fn wait_for_the_end(mut self) -> Packets {
        wait("the call has ended", &mut self.process, |output| output.contains("terminated (duration"));
        self.hang_up()
    }
}

impl Packets {
    /// From the table that the phone prints at the end of a call.
    fn of(finished: &Finished) -> Self {
        let output = format!("{}{}", finished.stdout, finished.stderr);
        let numbers = |name: &str| -> Option<[u64; 2]> {
            let line = output.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
            let mut numbers = line.split_whitespace().map(str::parse);
            Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
        };
        let ([sent, received], [_, lost]) =
            numbers("packets:").zip(numbers("lost:")).unwrap_or_else(|| panic!("{finished}"));
        Self { sent, received, lost }
    }
}

/// Waits for something that a program says, or does.
#[track_caller]
fn wait(what: &str, process: &mut Process, is_so: impl Fn(&str) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = process.stdout() + &process.stderr();
        if is_so(&output) {
            return;
        }
        assert!(process.is_running() && Instant::now() < end, "this did not become true: {what}\n{output}");
        thread::sleep(Duration::from_millis(20));
    }
}
