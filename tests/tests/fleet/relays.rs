//! Three relays that share what the example of `docs/fleet.md` says.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hairpin_tests::lab::coturn::EchoPeer;
use hairpin_tests::lab::process::{Finished, Process, run};
use hairpin_tests::lab::relay::{PORT, binary};
use hairpin_tests::lab::server::{is_installed, is_there};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Folder, Relay};
use hairpin_users::testing::RedisServer;
use rustix::process::Signal;

use crate::network::{Network, PEER, RELAYS, ip, repository};

/// A user that Redis knows, with its key: the MD5 of `alice:example.org:in-a-lab`.
pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "in-a-lab";
const KEY: &str = "e129ab35e52e3cba64f92fdfd532de09";
/// What whoever mints credentials has, too.
pub(crate) const SECRET: &str = "a secret of the whole fleet";
const NONCE_KEY: &str = "what nonces of the whole fleet are made with";

/// The address of a relay.
pub(crate) fn server(relay: usize) -> SocketAddr {
    SocketAddr::new(ip(RELAYS[relay]), PORT)
}

/// Files that all relays read.
pub(crate) struct Shared {
    folder: Folder,
    /// Where they look for users.
    store: String,
    redis: Option<RedisServer>,
}

impl Shared {
    /// With Redis on the host of services. `None` if it is not installed.
    pub(crate) fn redis(network: &Network) -> Option<Self> {
        let redis = RedisServer::start_in(network.services.name(), crate::network::NAME_SERVER.ip())?;
        redis.command(&["SET", "turn/realm/example.org/user/alice/key", KEY]);
        let shared = Self::by(&redis.url(0));
        Some(Self { redis: Some(redis), ..shared })
    }

    /// With another store.
    pub(crate) fn by(store: &str) -> Self {
        let folder = Folder::new("fleet");
        for (name, text) in [("auth-secrets", SECRET), ("nonce-keys", NONCE_KEY)] {
            let file = folder.path().join(name);
            fs::write(&file, text).expect("the folder is ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        }
        Self { folder, store: store.to_owned(), redis: None }
    }

    /// Has Redis know another user.
    pub(crate) fn add(&self, user: &str, key: &str) {
        let redis = self.redis.as_ref().expect("it is Redis");
        redis.command(&["SET", &format!("turn/realm/example.org/user/{user}/key"), key]);
    }

    /// The file of a relay: the example, with its own address, and with files and a store that are there.
    fn configure(&self, relay: usize) -> PathBuf {
        let (example, number) = (example(), RELAYS[relay]);
        let own = |line: &str| line.starts_with("listen ") || line.starts_with("relay-address ");
        let text: String = example.lines().fold(String::new(), |text, line| {
            let line = match line {
                line if own(line) => {
                    line.replace("113.11", &format!("113.{number}")).replace("113::11", &format!("113::{number}"))
                }
                line if line.starts_with("user-store ") => format!("user-store = [\"{}\"]", self.store),
                line => line.replace("/etc/hairpin", &self.folder.path().display().to_string()),
            };
            text + &line + "\n"
        });
        let file = self.path(relay, "toml");
        fs::write(&file, text).expect("the folder is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        file
    }

    fn path(&self, relay: usize, extension: &str) -> PathBuf {
        self.folder.path().join(format!("relay-{relay}.{extension}"))
    }
}

/// The only file of TOML in the guide.
fn example() -> String {
    let guide = repository("docs/fleet.md");
    let text = fs::read_to_string(&guide).unwrap_or_else(|error| panic!("{}: {error}", guide.display()));
    let (_, rest) = text.split_once("```toml\n").expect("the guide has an example");
    rest.split_once("```").expect("it ends").0.to_owned()
}

/// What is there before the relays: hosts, what these share, and a peer that sends back what it gets.
pub(crate) struct Bed {
    pub(crate) network: Network,
    pub(crate) shared: Shared,
    _peer: EchoPeer,
}

impl Bed {
    /// With Redis. `None`, with a word why, if something is not installed.
    pub(crate) fn new() -> Option<Self> {
        if !is_installed("turnutils_peer") {
            return None;
        }
        let network = Network::new()?;
        let shared = Shared::redis(&network)?;
        let peer = EchoPeer::start(&network.peers, &[PEER]);
        Some(Self { network, shared, _peer: peer })
    }

    pub(crate) fn fleet(&self) -> Fleet<'_> {
        Fleet::start(&self.network, &self.shared)
    }
}

/// The relays that run.
pub(crate) struct Fleet<'n> {
    pub(crate) network: &'n Network,
    shared: &'n Shared,
    relays: [Option<Relay<'n>>; 3],
}

impl<'n> Fleet<'n> {
    pub(crate) fn start(network: &'n Network, shared: &'n Shared) -> Self {
        let mut fleet = Self { network, shared, relays: [None, None, None] };
        (0..3).for_each(|relay| fleet.launch(relay));
        fleet
    }

    /// Starts a relay, for the first time or again.
    pub(crate) fn launch(&mut self, relay: usize) {
        let host = &self.network.relays[relay];
        let mut command = host.command(binary());
        command.args(["serve", "--config"]).arg(self.shared.configure(relay));
        // Peers of the test are where nobody is outside of it.
        command.args(["--allow-peer", "203.0.113.0/24", "--xdp", "off"]);
        command.env("HAIRPIN_ADMIN_SOCKET", self.socket(relay)).env_remove("HAIRPIN_CONFIG");
        self.relays[relay] = Some(Relay::start_with(host, &mut command));
    }

    pub(crate) fn relay(&self, relay: usize) -> &Relay<'n> {
        self.relays[relay].as_ref().expect("it runs")
    }

    /// How many responses of this kind a relay has sent.
    pub(crate) fn responses(&self, relay: usize, method: &str, code: &str) -> u64 {
        self.relay(relay).metrics().sum("hairpin_stun_responses_total", &[("method", method), ("code", code)])
    }

    /// Asks a relay by a command.
    pub(crate) fn ask(&self, relay: usize, arguments: &[&str]) -> Finished {
        let mut command = self.network.relays[relay].command(binary());
        run(command.args(arguments).env("HAIRPIN_ADMIN_SOCKET", self.socket(relay)))
    }

    /// Ends a relay without a word.
    pub(crate) fn kill(&mut self, relay: usize) {
        let process = self.relays[relay].take().expect("it runs").into_process();
        process.signal(Signal::KILL);
        process.wait(std::time::Duration::from_secs(5));
    }

    /// Has a relay end as whoever manages services does, and gives the process that ends.
    pub(crate) fn terminate(&mut self, relay: usize) -> Process {
        let process = self.relays[relay].take().expect("it runs").into_process();
        process.signal(Signal::TERM);
        process
    }

    /// A client of the user that Redis knows.
    pub(crate) fn client(&self, relay: usize) -> Client {
        self.client_of(relay, USER, PASSWORD)
    }

    pub(crate) fn client_of(&self, relay: usize, user: &str, password: &str) -> Client {
        let local = SocketAddr::new([0; 4].into(), 0);
        Client::new(&self.network.clients, local, server(relay), user, password)
    }

    fn socket(&self, relay: usize) -> PathBuf {
        self.shared.path(relay, "sock")
    }
}

/// What coturn fills a database with, if it is installed.
pub(crate) fn schema() -> Option<&'static Path> {
    let file = Path::new("/usr/share/coturn/schema.sql");
    is_there(file).then_some(file)
}
