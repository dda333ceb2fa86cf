//! The package of Debian's kind in a clean root, from its installation to its purge, as a newcomer would go about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hairpin_tests::lab::process::{run, run_for};
use hairpin_tests::lab::relay::{PASSWORD, USER, binary};
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::lab::{Call, Family, Folder, Lab, Relay};
use serde_json::Value;

use crate::host::Host;

/// Packing a program of the dev profile takes its time.
const PACKING: Duration = Duration::from_secs(300);
const CONFIGURATION: &str = "/etc/hairpin/hairpin.toml";
/// What belongs to the package, and is gone with it.
const FILES: [&str; 13] = [
    "/usr/bin/hairpin",
    "/usr/lib/systemd/system/hairpin.service",
    "/usr/lib/systemd/system/hairpin.socket",
    "/usr/share/man/man1/hairpin.1.gz",
    "/usr/share/man/man1/hairpin-serve.1.gz",
    "/usr/share/man/man5/hairpin.toml.5.gz",
    "/usr/share/bash-completion/completions/hairpin",
    "/usr/share/doc/hairpin/README.Debian",
    "/usr/share/doc/hairpin/copyright",
    "/usr/share/doc/hairpin/CHANGELOG.md",
    "/usr/share/doc/hairpin/examples/dns/example.org.zone",
    "/usr/share/doc/hairpin/examples/nftables/hairpin.nft",
    "/usr/share/doc/hairpin/examples/sysctl/90-hairpin.conf",
];
const ENABLED: [&str; 2] = [
    "/etc/systemd/system/multi-user.target.wants/hairpin.service",
    "/etc/systemd/system/sockets.target.wants/hairpin.socket",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above")
}

/// The package of what this test was built with.
fn package(folder: &Folder, version: &str) -> PathBuf {
    let path = folder.path().join(format!("hairpin_{version}.deb"));
    let mut command = Command::new(root().join("deploy/package.sh"));
    command.arg("--program").arg(binary()).args(["--fast", "--deb-version", version, "--output"]).arg(&path);
    run_for(&mut command, PACKING).expect_success();
    path
}

/// What the unit says that its process may do.
fn capabilities() -> Vec<String> {
    let unit = fs::read_to_string(root().join("deploy/systemd/hairpin.service")).expect("it is there");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).expect("it names them");
    line.split_whitespace().map(str::to_owned).collect()
}

/// Starts the relay of the package as its unit does.
fn start<'l>(host: &Host, lab: &'l Lab) -> Relay<'l> {
    // What systemd makes for the service.
    host.run("install", &["-d", "-o", "hairpin", "-g", "hairpin", "/run/hairpin"]);
    let capabilities = capabilities();
    let capabilities: Vec<_> = capabilities.iter().map(String::as_str).collect();
    let mut command = host.service(&lab.relay, "hairpin", &capabilities);
    command.args(["/usr/bin/hairpin", "serve"]);
    command.env("STATE_DIRECTORY", "/var/lib/hairpin").env("RUNTIME_DIRECTORY", "/run/hairpin");
    Relay::start_with(&lab.relay, &mut command)
}

#[test]
fn a_newcomer_installs_changes_upgrades_removes_and_purges_it() {
    let folder = Folder::new("package");
    let Some(host) = Host::new() else { return };
    let first = package(&folder, "0.1.0-1");
    expect_no_error(&first);
    host.install(&first);
    for file in FILES.iter().chain(&ENABLED) {
        assert!(host.has(file), "{file} is missing");
    }
    assert!(host.run("id", &["hairpin"]).contains("(hairpin)"));
    for (path, owner) in [
        ("/etc/hairpin", "root:hairpin 750"),
        (CONFIGURATION, "root:hairpin 640"),
        ("/var/lib/hairpin", "hairpin:hairpin 700"),
    ] {
        assert_eq!(host.owner(path), owner, "{path}");
    }

    // As it is, it runs, and makes a secret of its own.
    let lab = Lab::routed();
    let relay = start(&host, &lab);
    let said = relay.stop();
    assert!(said.stdout.contains("username: "), "{said}");
    assert_eq!(host.owner("/var/lib/hairpin/auth-secret"), "hairpin:hairpin 600");
    let credentials = ["credentials", "--auth-secret-file", "/var/lib/hairpin/auth-secret", "--name", "alice"];
    assert!(host.run("hairpin", &credentials).contains("password: "));

    // Two lines, and one that only a lab needs: its links are no network cards.
    host.write("/etc/hairpin/users", &format!("{USER}:{PASSWORD}\n"));
    host.run("chown", &["root:hairpin", "/etc/hairpin/users"]);
    host.run("chmod", &["640", "/etc/hairpin/users"]);
    let given = host.read(CONFIGURATION);
    let edited = given.replace("#realm =", "realm =").replace("#user-file =", "user-file =") + "xdp = \"native\"\n";
    assert_eq!(edited.matches("\nrealm = ").count() + edited.matches("\nuser-file = ").count(), 2, "{edited}");
    host.write(CONFIGURATION, &edited);
    let capabilities = capabilities();
    let capabilities: Vec<_> = capabilities.iter().map(String::as_str).collect();
    let mut check = host.service(&lab.relay, "hairpin", &capabilities);
    let checked = run(check.args(["/usr/bin/hairpin", "check"])).expect_success();
    assert!(checked.contains("the relay would start"), "{checked}");

    // The rights of the unit are enough to relay, in the kernel, too.
    let relay = start(&host, &lab);
    let call = Call::in_kernel(&lab, &relay, Family::V4);
    call.exchange(b"as a newcomer");
    // Whoever is root asks by the socket.
    let status: Value = serde_json::from_str(&host.run("hairpin", &["status", "--json"])).expect("it is JSON");
    assert_eq!(status["allocations"]["used"], 1, "{status:#}");
    drop(call);
    relay.stop();

    let second = package(&folder, "0.2.0-1");
    host.install(&second);
    assert!(host.run("dpkg", &["--status", "hairpin"]).contains("\nVersion: 0.2.0-1\n"));
    assert_eq!(host.read(CONFIGURATION), edited, "what was edited stays");
    assert_eq!(host.owner(CONFIGURATION), "root:hairpin 640");
    let relay = start(&host, &lab);
    relay.stop();

    host.apt(&["remove", "hairpin"]);
    for file in FILES {
        assert!(!host.has(file), "{file} is left");
    }
    assert!(host.has(CONFIGURATION) && host.has("/var/lib/hairpin/auth-secret"), "a removal keeps what is somebody's");

    host.apt(&["purge", "hairpin"]);
    for path in ENABLED.iter().chain(&[CONFIGURATION, "/var/lib/hairpin", "/run/hairpin"]) {
        assert!(!host.has(path), "{path} is left");
    }
    assert!(host.try_run("id", &["hairpin"]).code() != Some(0), "the user is left");
    assert!(host.has("/etc/hairpin/users"), "what the package has not made is not its own");

    host.install(&second);
    assert_eq!(host.read(CONFIGURATION), given, "it begins anew");
    assert_eq!(host.owner("/etc/hairpin"), "root:hairpin 750");
}

/// Checks that Debian's own checker finds no error.
fn expect_no_error(package: &Path) {
    if is_installed("lintian") {
        let finished =
            run_for(Command::new("lintian").args(["--fail-on", "error", "--allow-root"]).arg(package), PACKING);
        assert_eq!(finished.code(), Some(0), "{finished}");
    }
}
