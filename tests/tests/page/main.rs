//! The status page in headless Chromium: what it shows is what the relay counts, and everybody can use it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::browser::Kind;
use hairpin_tests::lab::call::CHANNEL;
use hairpin_tests::lab::load::{Load, Running};
use hairpin_tests::lab::process::{self, Process};
use hairpin_tests::lab::python;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Call, Family, Folder, Lab, Namespace, Relay, Transport};

/// Where pictures of the page are left for people, instead of being removed.
const PICTURES: &str = "HAIRPIN_PICTURES";
/// How long a browser may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(180);
const SECONDS: u32 = 600;

/// A relay whose page is to be opened.
struct Bed<'n> {
    host: &'n Namespace,
    relay: Relay<'n>,
    socket: PathBuf,
    folder: Folder,
}

impl<'n> Bed<'n> {
    fn new(host: &'n Namespace, arguments: &[&str]) -> Self {
        let folder = Folder::new("page");
        let socket = folder.path().join("admin.sock");
        let relay = start(host, &socket, arguments);
        Self { host, relay, socket, folder }
    }

    /// What `hairpin page` prints.
    fn link(&self) -> String {
        let mut command = self.host.command(binary());
        let printed = process::run(command.arg("page").env("HAIRPIN_ADMIN_SOCKET", &self.socket)).expect_success();
        printed.trim().to_owned()
    }

    /// Has a browser do something with the page.
    fn browse(&self, task: &str, arguments: &[&str]) {
        let Some(interpreter) = python::from_pypi() else { return };
        let mut command = python::command(self.host, interpreter, "page.py");
        command.arg(task).args(arguments).env("HOME", self.folder.path());
        let said = process::run_for(&mut command, PATIENCE).expect_success();
        assert!(said.trim().starts_with('{'), "{said}");
    }
}

fn start<'n>(host: &'n Namespace, socket: &std::path::Path, arguments: &[&str]) -> Relay<'n> {
    let mut command = host.command(binary());
    command.args(["serve", "--user", &format!("{USER}:{PASSWORD}")]).args(arguments);
    Relay::start_with(host, command.env("HAIRPIN_ADMIN_SOCKET", socket))
}

/// Whether all is there that these tests need; a word says what is not.
fn can_browse() -> bool {
    Kind::Chromium.is_installed() && python::from_pypi().is_some()
}

/// What would be more than a name, were it not text.
const NAME: &str = "<img src=x onerror=window.harm=1>";
/// A relay on one host, for tests that are not about traffic.
const ALONE: [&str; 8] =
    ["--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1", "--xdp", "off", "--allow-peer", "127.0.0.0/8"];

#[test]
fn figures_are_those_of_the_metrics_on_phones_and_desktops_by_day_and_night() {
    if !can_browse() {
        return;
    }
    let lab = Lab::routed();
    let bed = Bed::new(&lab.relay, &["--xdp", "native"]);
    let load = Load { rate: 300, seconds: SECONDS, payload: 200, allocations: 4 };
    let at = |family| SocketAddr::new(Lab::relay_ip(family), PORT);
    let flowing: [Running; 2] =
        [load.begin(&lab, at(Family::V4), &[]), load.begin(&lab, at(Family::V6), &["--transport", "tcp"])];
    bed.relay
        .wait_for("both paths relay", |metrics| ["kernel", "userspace"].iter().all(|path| metrics.relayed(path) > 0));
    let pictures = std::env::var(PICTURES).unwrap_or_else(|_| bed.folder.path().display().to_string());
    bed.browse("flowing", &[&bed.link(), &pictures]);
    let _outcomes = flowing.map(Running::stop);

    let _clients = stay(&lab);
    let call = Call::new(&lab, Family::V4);
    call.exchange(b"to be counted");
    stranger(&lab, &call);
    bed.relay.wait_for("all is counted", |metrics| {
        // By the path that was there when it came.
        let dropped = ["kernel", "userspace"].iter().any(|path| metrics.dropped(path, "no_permission") > 0);
        metrics.sum("hairpin_allocations", &[]) == 5 && dropped
    });
    bed.browse("still", &[&bed.link()]);
    bed.relay.stop();
}

/// Clients of both families over UDP and TCP that keep their allocations, and one that gets none.
fn stay(lab: &Lab) -> Vec<Client> {
    let client = |(family, transport), password| {
        let local = SocketAddr::new(Lab::client_ip(family, 0), 0);
        let server = SocketAddr::new(Lab::relay_ip(family), PORT);
        Client::at(transport, &lab.clients[0], local, server, USER, password)
    };
    client((Family::V4, Transport::Udp), "wrong").allocate().expect_err("the password is wrong");
    let kinds = Family::ALL.into_iter().flat_map(|family| [Transport::Udp, Transport::Tcp].map(|way| (family, way)));
    let mut clients: Vec<_> = kinds.map(|kind| client(kind, PASSWORD)).collect();
    for client in &mut clients {
        client.allocate().expect("the relay has room");
    }
    clients
}

/// Has somebody send to a relayed address without a permission.
fn stranger(lab: &Lab, call: &Call) {
    let own = SocketAddr::new(Lab::client_ip(Family::V4, 0), 0);
    let socket = hairpin_tests::lab::call::bind(&lab.clients[0], own);
    socket.send_to(b"unwanted", call.relayed).expect("the lab has a route");
}

#[test]
fn whoever_has_a_keyboard_only_reaches_everything_and_is_told_of_a_wrong_token() {
    if !can_browse() {
        return;
    }
    let host = Namespace::new("page");
    let bed = Bed::new(&host, &ALONE);
    let link = bed.link();
    let (address, token) = link.split_once("#token=").expect("a link with a token");
    bed.browse("keyboard", &[address, token]);
    bed.relay.stop();
}

#[test]
fn names_that_clients_make_up_are_text_and_nothing_else() {
    if !can_browse() {
        return;
    }
    let host = Namespace::new("page");
    let user = format!("{NAME}:{PASSWORD}");
    let bed = Bed::new(&host, &[&ALONE[..], &["--user", &user]].concat());
    let [local, server] = [0, PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let client = |password| Client::new(&host, local, server, NAME, password);
    client("wrong").allocate().expect_err("the password is wrong");
    let mut allocated = client(PASSWORD);
    allocated.allocate().expect("the relay has room");
    allocated.bind_channel(CHANNEL, SocketAddr::from(([127, 0, 0, 1], 9))).expect("it is allowed");
    bed.browse("harmless", &[&bed.link(), NAME]);
    bed.relay.stop();
}

#[test]
fn a_relay_that_ends_is_missed_and_found_again() {
    if !can_browse() {
        return;
    }
    let Some(interpreter) = python::from_pypi() else { return };
    let host = Namespace::new("page");
    let bed = Bed::new(&host, &ALONE);
    // So that counters are not 0 before, and are less afterwards.
    let [local, server] = [0, PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut client = Client::new(&host, local, server, USER, PASSWORD);
    client.allocate().expect("the relay has room");
    let url = bed.link();
    let mut command = python::command(&host, interpreter, "page.py");
    let browser = Process::spawn(command.args(["restart", &url]).env("HOME", bed.folder.path()));
    let said = |word: &str| {
        let end = Instant::now() + PATIENCE;
        while !browser.stdout().contains(word) {
            assert!(Instant::now() < end, "the page is not {word}: {}{}", browser.stdout(), browser.stderr());
            thread::sleep(Duration::from_millis(20));
        }
    };
    said("ready");
    bed.relay.stop();
    said("lost");
    let relay = start(&host, &bed.socket, &ALONE);
    browser.wait(PATIENCE).expect_success();
    relay.stop();
}

#[test]
fn a_page_that_nobody_looks_at_asks_for_nothing() {
    if !can_browse() {
        return;
    }
    let host = Namespace::new("page");
    let bed = Bed::new(&host, &ALONE);
    bed.browse("hidden", &[&bed.link()]);
    bed.relay.stop();
}
