//! The pages of man(1).

use std::fs;
use std::path::Path;
use std::process::Command;

use hairpin_tests::lab::Folder;
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::server::is_installed;

/// The pages of all commands, as the definition of the command line has them.
fn pages(command: &clap::Command, name: &str) -> Vec<String> {
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help");
    let inner = inner.flat_map(|inner| pages(inner, &format!("{name}-{}", inner.get_name())));
    std::iter::once(format!("{name}.1")).chain(inner).collect()
}

fn manual() -> Folder {
    let folder = Folder::new("manual");
    run(Command::new(binary()).arg("manual").arg(folder.path())).expect_success();
    folder
}

fn formatted(page: &Path) -> String {
    let mut man = Command::new("man");
    man.args(["--warnings", "--local-file"]).arg(page).env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8");
    let finished = run(&mut man);
    assert_eq!(finished.stderr, "", "{finished}");
    // Lines are filled, and broken wherever there is a blank.
    finished.expect_success().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_and_the_file_have_a_page_and_no_page_is_left_over() {
    let folder = manual();
    let mut written: Vec<_> = fs::read_dir(folder.path())
        .expect("it was made")
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    written.sort();
    let mut expected = pages(&hairpin::cli::command(), "hairpin");
    expected.push("hairpin.toml.5".to_owned());
    expected.sort();
    assert_eq!(written, expected);
}

#[test]
fn man_has_nothing_to_complain_of_and_shows_what_matters() {
    if !is_installed("man") {
        return;
    }
    let folder = manual();
    for file in fs::read_dir(folder.path()).expect("it was made").flatten() {
        let text = formatted(&file.path());
        assert!(text.contains(" SYNOPSIS ") && text.contains(" DESCRIPTION "), "{text}");
    }
    let serve = formatted(&folder.path().join("hairpin-serve.1"));
    for words in
        ["hairpin-serve - ", "hairpin serve [OPTIONS]", "--relay-ports <MIN-MAX> [default: 49152-65535]", "SIGUSR1"]
    {
        assert!(serve.contains(words), "{words}:\n{serve}");
    }
    let file = formatted(&folder.path().join("hairpin.toml.5"));
    for words in ["relay-ports = \"49152-65535\"", "Default: the address"] {
        assert!(file.contains(words), "{words}:\n{file}");
    }
}

#[test]
fn mandoc_has_nothing_to_complain_of() {
    if !is_installed("mandoc") {
        return;
    }
    let folder = manual();
    for file in fs::read_dir(folder.path()).expect("it was made").flatten() {
        let finished = run(Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(file.path()));
        assert_eq!((finished.code(), finished.stdout.as_str()), (Some(0), ""), "{finished}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_told_in_one_line() {
    run(Command::new(binary()).args(["manual", "/dev/null/pages"])).expect_one_line(1, &["hairpin: /dev/null/pages: "]);
}
