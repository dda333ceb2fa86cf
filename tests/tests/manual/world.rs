//! The world of the examples: what docs/README.md says that commands on any page may rely on.
//!
//! A page has hosts of its own: network namespaces, and a file system over that of this machine, in which nothing that a
//! page writes is seen from outside. The relay's host has 192.0.2.1, 192.0.2.2, 10.0.0.5 and 2001:db8::1; a client has
//! 203.0.113.9, and a peer 198.51.100.7.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::process::{Finished, Process, run_for};
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Authority, Certificate, Key, Lab, Namespace};
use hairpin_tests::markdown::{Page, repository};

/// How long one block may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What makes the file system: the machine's own, with a layer above it that is lost in the end. The repository and the program
/// are taken along before the folders are covered that they may be in.
const FILE_SYSTEM: &str = r#"set -e
mount -t tmpfs tmpfs /run
layer() {
    mkdir -p "/run/world/upper$1" "/run/world/work$1"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/world/upper$1,workdir=/run/world/work$1" "$2"
}
mkdir -p /run/world/repository /run/world/bin
layer "$ROOT" /run/world/repository
layer /etc /etc
layer /var/lib /var/lib
touch /run/world/bin/hairpin
mount --bind "$BINARY" /run/world/bin/hairpin
mkdir -p /etc/hairpin
cp "$CERTIFICATE" /etc/hairpin/turn.example.org.pem
install -m 600 "$PRIVATE_KEY" /etc/hairpin/turn.example.org.key
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /tmp
mkdir -p /mnt/home "$ROOT"
mount --bind /run/world/repository "$ROOT"
printf '127.0.0.1 localhost\n192.0.2.1 turn.example.org\n198.51.100.80 app.example.org\n' > /etc/hosts
install -m 600 /dev/null /etc/hairpin/hairpin.toml
printf '%s' "$CONFIGURATION" > /etc/hairpin/hairpin.toml
echo ready
exec sleep infinity
"#;

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The relay's host.
    Relay,
    /// The client's.
    Client,
}

/// The hosts of one page. All that runs on them ends with this.
#[derive(Debug)]
pub(crate) struct World {
    lab: Lab,
    holder: Process,
    relay: Option<Process>,
    background: Vec<Process>,
    _certificate: Certificate,
}

impl World {
    /// Makes the hosts, with nothing running on them.
    pub(crate) fn new() -> Self {
        let lab = Lab::routed();
        lab.router.ip("addr add 192.0.2.254/24 dev relay0
             addr add 2001:db8::fe/64 dev relay0 nodad
             addr add 10.0.0.254/24 dev relay0
             route add 203.0.113.9 via 11.1.0.2
             route add 198.51.100.7 via 11.2.0.2");
        lab.relay.ip("addr flush dev eth0 scope global
             addr add 192.0.2.1/24 dev eth0
             addr add 192.0.2.2/24 dev eth0
             addr add 10.0.0.5/24 dev eth0
             addr add 2001:db8::1/64 dev eth0 nodad
             route add default via 192.0.2.254
             route replace default via 2001:db8::fe");
        host(&lab.clients[0], "203.0.113.9", "11.1.0.1");
        host(&lab.peers[0], "198.51.100.7", "11.2.0.1");
        let certificate = Authority::new().issue(Key::Ecdsa, "turn.example.org", &[]);
        let mut command = lab.relay.command("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", FILE_SYSTEM]);
        command.env("ROOT", repository()).env("BINARY", binary()).env("CONFIGURATION", configuration());
        command.env("CERTIFICATE", &certificate.file).env("PRIVATE_KEY", &certificate.private_key);
        let holder = Process::spawn(&mut command);
        let mut world = Self { lab, holder, relay: None, background: Vec::new(), _certificate: certificate };
        let end = Instant::now() + PATIENCE;
        while world.holder.stdout() != "ready\n" {
            assert!(world.holder.is_running() && Instant::now() < end, "no host: {}", world.holder.stderr());
            thread::sleep(Duration::from_millis(5));
        }
        world
    }

    /// Runs a script to its end.
    pub(crate) fn run(&self, place: Place, script: &str) -> Finished {
        run_for(&mut self.command(place, script), PATIENCE)
    }

    /// Starts a server that runs until the end of the page, and waits until it has opened a port.
    pub(crate) fn start(&mut self, script: &str) -> Result<(), String> {
        let before = self.open_ports();
        let mut process = Process::spawn(&mut self.command(Place::Relay, script));
        let end = Instant::now() + PATIENCE;
        while self.open_ports() <= before {
            if !process.is_running() || Instant::now() > end {
                return Err(format!("it opens no port: {}", process.wait(Duration::ZERO)));
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.background.push(process);
        Ok(())
    }

    fn open_ports(&self) -> usize {
        self.run(Place::Relay, "ss --no-header --listening --numeric --udp --tcp").expect_success().lines().count()
    }

    /// Starts a relay in the place of the one that runs, and waits until it is ready.
    pub(crate) fn serve(&mut self, script: &str) -> Result<(), String> {
        self.stop_relay()?;
        // The signal that ends it is for the relay, not for a shell that waits for it.
        let script = script.replacen("hairpin serve", "exec hairpin serve", 1);
        let mut relay = Process::spawn(&mut self.command(Place::Relay, &script));
        let end = Instant::now() + PATIENCE;
        let ready = "curl --silent --fail --max-time 5 http://127.0.0.1:9641/readyz";
        while self.run(Place::Relay, ready).code() != Some(0) {
            if !relay.is_running() || Instant::now() > end {
                return Err(format!("the relay does not get ready: {}", relay.wait(Duration::ZERO)));
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.relay = Some(relay);
        Ok(())
    }

    /// What has ended that should run on.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for mut process in self.background.drain(..) {
            if !process.is_running() {
                ended.push(process.wait(Duration::ZERO).to_string());
            }
        }
        ended
    }

    /// Ends the relay in order. One that was told to end by the page has done so already.
    pub(crate) fn stop_relay(&mut self) -> Result<(), String> {
        let Some(mut relay) = self.relay.take() else { return Ok(()) };
        if relay.is_running() {
            relay.signal(rustix::process::Signal::TERM);
        }
        let finished = relay.wait(PATIENCE);
        if finished.code() == Some(0) { Ok(()) } else { Err(format!("the relay does not end in order: {finished}")) }
    }

    fn command(&self, place: Place, script: &str) -> Command {
        let namespace = match place {
            Place::Relay => &self.lab.relay,
            Place::Client => &self.lab.clients[0],
        };
        // The network of the one host, the files that all of them share.
        let mut command = namespace.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.pid().as_raw_nonzero()));
        command.args([
            "env",
            "--ignore-environment",
            "PATH=/run/world/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/mnt/home",
        ]);
        command.args(["bash", "-euo", "pipefail", "-c"]);
        command.arg(format!("cd {}\n{script}", repository().display()));
        command
    }
}

/// The configuration that docs/README.md shows.
fn configuration() -> String {
    let page = Page::read(Path::new("docs/README.md"));
    let block = page.blocks.into_iter().find(|block| block.info == "toml");
    block.expect("docs/README.md shows the configuration of the examples").text
}

/// Gives a host another address, which it sends from.
fn host(namespace: &Namespace, address: &str, router: &str) {
    namespace.ip(&format!(
        "addr add {address}/32 dev eth0
         route replace default via {router} src {address}"
    ));
}
