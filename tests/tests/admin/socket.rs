//! The Unix socket: whose it is, and what becomes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use hairpin_tests::lab::process::{run, run_for};
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Namespace, Relay};
use rustix::process::Signal;

use crate::bed::{Bed, serve};

const AT_ONCE: Duration = Duration::from_secs(20);

#[test]
fn it_is_for_the_relays_user_alone_and_goes_with_the_relay() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let mode = |path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(bed.socket.as_path()), 0o600);
    assert_eq!(mode(bed.socket.parent().expect("a folder")), 0o755);
    assert_eq!(bed.unix("GET", "/v1/status", &[], "").status, 200);

    let mut stranger = host.command("setpriv");
    stranger.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(binary());
    stranger.args(["status", "--admin-socket"]).arg(&bed.socket);
    let socket = bed.socket.display().to_string();
    run(&mut stranger).expect_one_line(1, &["hairpin: ", &socket, "--admin-url"]);

    let Bed { relay, socket, .. } = bed;
    relay.stop();
    assert!(!socket.exists(), "nothing is left");
}

#[test]
fn a_living_relays_socket_is_left_to_it_and_a_dead_ones_is_replaced() {
    let host = Namespace::new("admin");
    let mut bed = Bed::new(&host, &[]);
    let other = Namespace::new("other");
    let refused = run_for(&mut serve(&other, &bed.socket), AT_ONCE);
    refused.expect_one_line(1, &["--admin-socket", "another process answers there"]);
    assert_eq!(bed.unix("GET", "/v1/status", &[], "").status, 200, "the first one still answers");

    bed.relay.process().signal(Signal::KILL);
    while bed.relay.process().is_running() {
        std::thread::yield_now();
    }
    assert!(bed.socket.exists(), "a process that is killed removes nothing");
    let command = run(&mut bed.command(&["status"]));
    command.expect_one_line(1, &["no relay answers there; is it running?"]);
    let relay = Relay::start_with(&other, &mut serve(&other, &bed.socket));
    assert_eq!(bed.unix("GET", "/v1/status", &[], "").status, 200);
    relay.stop();
    assert!(!bed.socket.exists());
}

#[test]
fn a_relay_without_a_socket_serves_its_clients_all_the_same() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ADMIN_SOCKET", "off")]);
    assert!(!bed.socket.exists());
    bed.allocated();
    bed.relay.stop();
}
