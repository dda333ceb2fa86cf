//! Sockets of the admin interface that a service manager has opened (sd_listen_fds(3)).

#![allow(unsafe_code, reason = "a child gets descriptors of certain numbers between fork and exec")]

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use hairpin_tests::lab::http::{ask, tcp, unix};
use hairpin_tests::lab::process::{PATIENCE, run};
use hairpin_tests::lab::relay::{PASSWORD, USER, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Folder, Namespace, Process, Relay};
use rustix::process::Signal;

use crate::supervisor::serve_passed;

/// Has a command inherit these as descriptors 3, 4 and so on.
fn pass<'c>(command: &'c mut Command, sockets: &[&OwnedFd]) -> &'c mut Command {
    // Out of the way of the numbers that they shall have.
    let copies: Vec<OwnedFd> = sockets.iter().map(|socket| above(socket)).collect();
    // SAFETY: dup2(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (number, copy) in (3..).zip(&copies) {
                if libc::dup2(copy.as_raw_fd(), number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        })
    }
}

fn above(socket: &OwnedFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(socket, 100).expect("there is room for a copy")
}

#[test]
fn a_unix_socket_is_used_as_it_is_and_outlives_the_relay() {
    let host = Namespace::new("passed");
    let folder = Folder::new("passed");
    let path = folder.path().join("admin.sock");
    let socket = OwnedFd::from(UnixListener::bind(&path).expect("the folder is ours"));
    fs::set_permissions(&path, Permissions::from_mode(0o660)).expect("it is ours");
    let other = folder.path().join("other.sock");
    let mut command = serve_passed(&host, 1, "admin");
    // What the relay would open itself is not opened.
    let relay = Relay::start_with(&host, pass(command.env("HAIRPIN_ADMIN_SOCKET", &other), &[&socket]));
    assert!(!other.exists());
    assert_eq!(ask(unix(&path), "GET", "/v1/status", &[], "").all().status, 200);
    run(host.command(binary()).args(["status", "--admin-socket"]).arg(&path)).expect_success();
    let mode = || fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o660);
    relay.stop();
    assert_eq!(mode(), 0o660);
    // Whoever asks now waits for the next relay.
    UnixStream::connect(&path).expect("it is open still");
}

#[test]
fn whoever_waits_for_the_end_of_a_relay_starts_no_other() {
    let host = Namespace::new("passed");
    let folder = Folder::new("passed");
    let path = folder.path().join("admin.sock");
    // Where a service manager is: sockets of other network namespaces are not seen.
    let listener = host.enter(|| UnixListener::bind(&path)).expect("the folder is ours");
    let socket = OwnedFd::from(listener.try_clone().expect("it is open"));
    let relay = Relay::start_with(&host, pass(&mut serve_passed(&host, 1, "admin"), &[&socket]));
    let [local, server] = [0, 3478].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut client = Client::new(&host, local, server, USER, PASSWORD);
    client.allocate().expect("an allocation");
    let asked = |arguments: &[&str]| {
        run(host.command(binary()).args(arguments).env("HAIRPIN_ADMIN_SOCKET", &path)).expect_success()
    };
    let told = asked(&["drain", "--timeout", "1s", "--stop", "--wait"]);
    assert!(told.contains("draining: 1 allocation left"), "{told}");
    relay.into_process().wait(PATIENCE).expect_success();
    // Looks for who listens, which is the manager.
    let mut check = host.command(binary());
    check.args(["check", "--relay-address", "127.0.0.1", "--xdp", "off", "--user", "a:b"]);
    let checked = run(check.env("HAIRPIN_ADMIN_SOCKET", &path));
    assert!(checked.stdout.contains("another process listens there"), "{checked}");
    listener.set_nonblocking(true).expect("it is open");
    let next = listener.accept().map_err(|error| error.kind());
    assert_eq!(next.map(drop), Err(ErrorKind::WouldBlock), "a manager would start another relay");
}

#[test]
fn a_tcp_socket_is_used_in_place_of_the_address() {
    let host = Namespace::new("passed");
    // A relay that opened it itself would find it in use.
    let socket = host.enter(|| TcpListener::bind("127.0.0.1:9641")).expect("nobody else is here");
    let relay = Relay::start_with(&host, pass(&mut serve_passed(&host, 1, "admin"), &[&OwnedFd::from(socket)]));
    assert_eq!(relay.get("/v1/status").map(|(status, _)| status), Some(403), "without a token nobody may, as ever");
    relay.stop();
}

#[test]
fn the_status_page_is_announced_where_it_is() {
    let host = Namespace::new("passed");
    let address = SocketAddr::from(([127, 0, 0, 1], 9642));
    for configured in ["127.0.0.1:9641", "off"] {
        let socket = OwnedFd::from(host.enter(|| TcpListener::bind(address)).expect("nobody else is here"));
        let mut command = serve_passed(&host, 1, "admin");
        let relay = Process::spawn(pass(command.args(["--admin", configured]), &[&socket]));
        // The socket waits for it.
        assert_eq!(ask(tcp(&host, address), "GET", "/healthz", &[], "").all().status, 200);
        relay.signal(Signal::TERM);
        let said = relay.wait(PATIENCE);
        assert!(said.stderr.contains("status page on http://127.0.0.1:9642/, metrics on"), "{said}");
        assert!(!said.stderr.contains(":9641"), "{said}");
    }
}

#[test]
fn a_socket_that_does_not_fit_is_told_in_one_line() {
    let host = Namespace::new("passed");
    let folder = Folder::new("passed");
    let listening =
        |name: &str| OwnedFd::from(UnixListener::bind(folder.path().join(name)).expect("the folder is ours"));
    let udp = OwnedFd::from(host.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("nobody else is here"));
    let (one, two) = (listening("one"), listening("two"));
    let cases: [(&[&OwnedFd], &str, &str); 4] = [
        (&[&udp], "admin", "no stream socket that listens"),
        (&[&one], "hairpin.socket", "a socket named \"hairpin.socket\": only \"admin\""),
        (&[&one], "", "FileDescriptorName=admin"),
        (&[&one, &two], "admin:admin", "more than one Unix socket"),
    ];
    for (sockets, names, words) in cases {
        let mut command = serve_passed(&host, sockets.len() as u8, names);
        run(pass(&mut command, sockets)).expect_one_line(2, &["hairpin: ", words]);
    }
}
