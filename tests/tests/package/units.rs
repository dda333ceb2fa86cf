//! The units of systemd, as systemd-analyze judges them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hairpin_tests::lab::Folder;
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::server::is_installed;

/// How exposed the service may be, in tenths of what systemd-analyze calls so; 100 is a service without any restriction.
const THRESHOLD: &str = "--threshold=20";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").join("deploy/systemd")
}

/// The units, with the program where it was built.
fn folder() -> Folder {
    let folder = Folder::new("units");
    for name in ["hairpin.service", "hairpin.socket"] {
        let text = fs::read_to_string(units().join(name)).expect("it is there");
        let text = text.replace("/usr/bin/hairpin", &binary().display().to_string());
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    }
    folder
}

#[test]
fn they_are_sound() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let folder = folder();
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(["hairpin.service", "hairpin.socket"].map(|name| folder.path().join(name)));
    let finished = run(&mut verify);
    assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""), "{finished}");
}

#[test]
fn the_service_is_hardly_exposed() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", THRESHOLD]).arg(units().join("hairpin.service"));
    let finished = run(&mut security);
    assert_eq!(finished.code(), Some(0), "{finished}");
}
