//! The Containerfile: what it names is there, and its last stage has all that the relay needs.

use std::collections::BTreeSet;
use std::process::Command;

use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Lab, Relay, server};

use crate::image::{CONTAINERFILE, Container, Image, Runtime};
use crate::{is_option, read, repository, version};

/// What every image of Debian has.
const BASE: [&str; 2] = ["libc6", "libgcc-s1"];

#[test]
fn what_it_copies_runs_and_sets_is_there() {
    let image = Image::read();
    let mut copied = Vec::new();
    for line in &image.instructions {
        let words: Vec<_> = line.split(' ').collect();
        match words[0] {
            "COPY" => copied.extend_from_slice(&words[1..words.len() - 1]),
            "RUN" if words[1].starts_with("deploy/") => {
                assert!(copied.contains(&words[1]), "{} was copied before", words[1]);
            }
            _ => {}
        }
    }
    assert!(copied.len() >= 4, "{copied:?}");
    for source in copied {
        assert!(repository(source).exists(), "{source} is copied");
    }
    for (name, _) in &image.environment {
        assert!(is_option(name), "{name} is an option");
    }
    let has = |line: &str| image.last.iter().any(|is| is == line);
    for line in ["ENTRYPOINT [\"hairpin\"]", "CMD [\"serve\"]"] {
        assert!(has(line), "{line}");
    }
    let health = image.last.iter().find(|line| line.starts_with("HEALTHCHECK")).expect("its health is looked at");
    let (_, command) = health.split_once(" CMD ").expect("by a command");
    let command: Vec<String> = serde_json::from_str(command).expect("a list");
    run(Command::new(binary()).args(&command[1..]).arg("--help")).expect_success();
    let labels = image.last.iter().find(|line| line.starts_with("LABEL")).expect("it has labels");
    assert!(labels.contains(&format!("image.version=\"{}\"", version())), "{labels}");
    let ports = image.last.iter().find(|line| line.starts_with("EXPOSE")).expect("it has ports");
    for port in ["3478/udp", "3478/tcp", "49152-65535/udp"] {
        assert!(ports.contains(port), "{ports}");
    }
}

#[test]
fn its_compiler_is_new_enough_and_docker_reads_the_same_ignore_file() {
    let image = Image::read();
    let rust = image.instructions.iter().find_map(|line| line.strip_prefix("ARG RUST=")).expect("it names one");
    let oldest = read("Cargo.toml");
    let oldest = oldest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("there is an oldest");
    let minor = |version: &str| -> u32 {
        version.trim_matches('"').split('.').nth(1).and_then(|minor| minor.parse().ok()).expect("a version")
    };
    assert!(minor(rust) >= minor(oldest), "{rust} and {oldest}");
    assert_eq!(read(&format!("{CONTAINERFILE}.dockerignore")), read(".containerignore"));
}

#[test]
fn cargo_finds_the_workspace_in_what_the_ignore_file_leaves() {
    let folder = hairpin_tests::lab::Folder::new("context");
    let root = repository(".");
    let mut copy = Command::new("tar");
    copy.arg("--create").arg("--directory").arg(&root);
    let ignored = read(".containerignore");
    let patterns = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    // Those of tar match at any depth when they have no slash.
    copy.args(patterns.map(|pattern| format!("--exclude=./{}", pattern.trim_start_matches("**/"))));
    copy.args(["--exclude=target", "--file"]).arg(folder.path().join("context.tar")).arg(".");
    run(&mut copy).expect_success();
    let tar = ["--extract", "--file", "context.tar"];
    run(Command::new("tar").args(tar).current_dir(folder.path())).expect_success();
    let cargo = ["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"];
    run(Command::new("cargo").args(cargo).current_dir(folder.path())).expect_success();
    for line in Image::read().instructions.iter().filter(|line| line.starts_with("COPY ")) {
        let words: Vec<_> = line.split(' ').collect();
        for source in &words[1..words.len() - 1] {
            assert!(folder.path().join(source).exists(), "{source} is copied and ignored");
        }
    }
}

#[test]
fn the_last_stage_installs_all_libraries() {
    if !server::is_installed("dpkg") {
        return;
    }
    let image = Image::read();
    let install = image.last.iter().find(|line| line.contains("apt-get install")).expect("it installs something");
    let installed: BTreeSet<_> = install.split(' ').collect();
    let libraries = run(Command::new("ldd").arg(binary())).expect_success();
    let files: Vec<_> = libraries.lines().filter_map(|line| line.split(" => ").nth(1)?.split(' ').next()).collect();
    assert!(files.len() >= 3, "{libraries}");
    for file in files {
        let name = file.rsplit('/').next().expect("a name");
        let owner = run(Command::new("dpkg").args(["--search", &format!("*/{name}")])).expect_success();
        let is = owner.lines().any(|line| {
            let package = line.split(':').next().unwrap_or_default();
            BASE.contains(&package) || installed.contains(package)
        });
        assert!(is, "{name} is in none of {installed:?}: {owner}");
    }
}

#[test]
fn it_starts_where_no_capability_is_granted_and_relays_in_userspace() {
    if !server::is_installed("setcap") {
        return;
    }
    let image = Image::read();
    let lab = Lab::routed();
    let container = Container::new(&image);
    let user = [("HAIRPIN_USER".to_owned(), "alice:in-a-lab".to_owned())];
    // Docker grants, by default, none of those that the file has but this one.
    let grants = ["NET_BIND_SERVICE".to_owned()];
    for escalates in [false, true] {
        let runtime = Runtime { grants: &grants, escalates, environment: &user };
        let relay = Relay::start_with(&lab.relay, &mut container.command(&lab.relay, &runtime, &["serve"]));
        let call = hairpin_tests::lab::Call::new(&lab, hairpin_tests::lab::Family::V4);
        call.exchange(b"in userspace");
        assert_eq!(relay.metrics().relayed("kernel"), 0);
    }
}

#[test]
fn it_takes_a_low_port_only_with_the_capability() {
    if !server::is_installed("setcap") {
        return;
    }
    let image = Image::read();
    let lab = Lab::routed();
    lab.relay.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024")).expect("it has one");
    let container = Container::new(&image);
    let environment =
        [("HAIRPIN_USER", "alice:in-a-lab"), ("HAIRPIN_XDP", "off"), ("HAIRPIN_LISTEN", "udp:0.0.0.0:443")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let with = |grants: &[String]| {
        let runtime = Runtime { grants, escalates: false, environment: &environment };
        container.command(&lab.relay, &runtime, &["serve"])
    };
    let refused = run(&mut with(&[]));
    refused.expect_one_line(1, &["443"]);
    Relay::start_with(&lab.relay, &mut with(&image.grants())).stop();
}
