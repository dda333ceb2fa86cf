//! What shells complete.

use std::fs;
use std::process::Command;

use hairpin_tests::lab::Folder;
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::server::is_installed;

fn script(shell: &str) -> String {
    run(Command::new(binary()).args(["completions", shell])).expect_success()
}

/// What bash offers at the end of a line.
fn offered(folder: &Folder, line: &[&str]) -> Vec<String> {
    let file = folder.path().join("completions");
    fs::write(&file, script("bash")).expect("the folder is ours");
    // As bash does it: the function that `complete` names gets the command, the word and the one before.
    let code = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        function=$(complete -p hairpin | sed 's/.*-F \([^ ]*\) .*/\1/')
        "$function" hairpin "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; printf '%s\n' "${COMPREPLY[@]}""#;
    let output = run(Command::new("bash").args(["--norc", "-c", code, "bash"]).arg(&file).args(line)).expect_success();
    output.lines().map(str::to_owned).filter(|word| !word.is_empty()).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = Folder::new("bash");
    assert_eq!(offered(&folder, &["hairpin", "relo"]), ["reload"]);
    assert_eq!(offered(&folder, &["hairpin", "ice", "cand"]), ["candidates"]);
    assert_eq!(offered(&folder, &["hairpin", "serve", "--relay-po"]), ["--relay-ports"]);
    assert_eq!(offered(&folder, &["hairpin", "serve", "--xdp", "nat"]), ["native"]);
    assert_eq!(offered(&folder, &["hairpin", "no-such-command"]), [""; 0]);
    assert!(offered(&folder, &["hairpin", ""]).len() > 15);
}

#[test]
fn other_shells_read_their_scripts() {
    let folder = Folder::new("shells");
    for (shell, check) in [("zsh", ["-n"]), ("fish", ["--no-execute"])] {
        let script = script(shell);
        assert!(script.contains("relay-ports"), "{script}");
        let file = folder.path().join(shell);
        fs::write(&file, script).expect("the folder is ours");
        if is_installed(shell) {
            let finished = run(Command::new(shell).args(check).arg(&file));
            assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""), "{finished}");
        }
    }
    run(Command::new(binary()).args(["completions", "tcsh"])).expect_one_line(2, &["tcsh", "bash", "zsh", "fish"]);
}
