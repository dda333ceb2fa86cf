//! Settings of a real relay: four layers, what is wrong with them, secrets, and the documents that are made from them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hairpin_tests::lab::process::{Finished, run_for};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Folder, Namespace, Relay};

/// Commands that show or are to fail do it at once.
const AT_ONCE: Duration = Duration::from_secs(10);
/// What no output may hold.
const SECRETS: [&str; 4] = [PASSWORD, "northern-light", "token-of-the-house", "token-of-the-guest"];

#[test]
fn all_that_is_wrong_is_told_at_once_in_one_line_each() {
    let (host, folder) = (Namespace::new("config"), Folder::new("config"));
    let file = write(
        &folder,
        "hairpin.toml",
        "realm = 5\n\n[limits]\nmax_allocations = 3\nlisten = ['127.0.0.1:3478',\n  'udp:127.0.0.1:3478']\nuser = 'alice'\n\
         relay-ports = '3000-4000'\n",
    );
    let mut command = host.command(binary());
    command.args(["serve", "--config", &file, "--shards", "0", "--relay-address", "127.0.0.1"]);
    command.env("HAIRPIN_XDP", "fast").env("HAIRPIN_DENY_PEER", "10.0.0.0/8 nobody");
    let finished = run_for(&mut command, AT_ONCE);
    assert_eq!(finished.code(), Some(2), "{finished}");
    assert_eq!(finished.stdout, "", "{finished}");
    let lines: Vec<_> = finished.stderr.lines().collect();
    let of_file = |line: usize, what: &str| format!("hairpin: {file}:{line}: {what}");
    assert_eq!(
        lines,
        [
            "hairpin: --shards 0: 0 is not in 1..=256".to_owned(),
            "hairpin: HAIRPIN_DENY_PEER nobody: ADDR/LENGTH is needed, such as 10.0.0.0/8".to_owned(),
            "hairpin: HAIRPIN_XDP fast: auto, native, generic and off are allowed".to_owned(),
            of_file(1, "realm must be a string, not a number"),
            of_file(3, "[limits] is a section, and there are none: leave this line out"),
            of_file(4, "max_allocations is no option; is max-allocations meant?"),
            of_file(7, "user: no colon: a line is NAME:PASSWORD, NAME:0xMD5 or NAME:hashed:md5=MD5[,sha256=SHA256]"),
            of_file(8, "relay-ports 3000-4000 contains port 3478 of listen (line 5)"),
            of_file(6, "listen udp:127.0.0.1:3478 is given twice"),
        ],
        "{finished}"
    );
}

#[test]
fn every_key_refuses_a_value_of_another_type_and_says_what_is_right() {
    let folder = Folder::new("config");
    let keys = keys();
    let dates: String = keys.iter().flat_map(|key| [key.as_str(), " = 1979-05-27\n"]).collect();
    let finished = show(&["--config", &write(&folder, "hairpin.toml", &dates)]);
    assert_eq!(finished.code(), Some(2), "{finished}");
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), keys.len(), "{finished}");
    for (number, (line, key)) in lines.into_iter().zip(&keys).enumerate() {
        assert!(line.contains(&format!("hairpin.toml:{}: {key} must be ", number + 1)), "{line}");
        assert!(line.ends_with(", not a date"), "{line}");
    }
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let folder = Folder::new("config");
    let file = write(&folder, "hairpin.toml", "realm = 'file'\nallow-peer = ['10.0.0.0/8', '::/0']\nmobility = true\n");
    let shown = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(binary());
        command.args(["config", "--show", "--relay-address", "127.0.0.1"]).args(flags).env("HAIRPIN_CONFIG", &file);
        run_for(command.envs(variables.iter().copied()), AT_ONCE).expect_success()
    };
    let text = shown(&[], &[]);
    let has = |text: &str, line: &str| assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    has(&text, &format!("realm = \"file\" # {file}:1"));
    has(&text, &format!("allow-peer = [\"10.0.0.0/8\", \"::/0\"] # {file}:2"));
    has(&text, "relay-address = [\"127.0.0.1\"] # --relay-address");
    has(&text, "relay-ports = \"49152-65535\" # default");
    let variables = [("HAIRPIN_REALM", "variable"), ("HAIRPIN_ALLOW_PEER", "192.0.2.0/24"), ("HAIRPIN_MOBILITY", "")];
    let text = shown(&[], &variables);
    has(&text, "realm = \"variable\" # HAIRPIN_REALM");
    has(&text, "allow-peer = [\"192.0.2.0/24\"] # HAIRPIN_ALLOW_PEER");
    has(&text, &format!("mobility = true # {file}:3"));
    let text = shown(&["--realm", "flag", "--mobility=false"], &variables);
    has(&text, "realm = \"flag\" # --realm");
    has(&text, "mobility = false # --mobility");
    // What is shown is a file again.
    let again = write(&folder, "again.toml", &text);
    has(&shown(&["--config", &again], &[]), &format!("realm = \"flag\" # {again}:{}", line_of(&text, "realm = ")));
}

#[test]
fn the_file_is_read_where_it_is_by_default_and_need_not_be_there() {
    // A folder of this test's own in the place of the host's.
    let script = "mount -t tmpfs none /etc && mkdir /etc/hairpin && \
        \"$0\" config --show --relay-address 127.0.0.1 && \
        echo 'realm = \"found\"' > /etc/hairpin/hairpin.toml && \
        \"$0\" config --show --relay-address 127.0.0.1";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(binary()).env_remove("HAIRPIN_CONFIG");
    let text = run_for(&mut command, AT_ONCE).expect_success();
    let realms: Vec<_> = text.lines().filter(|line| line.starts_with("realm = ")).collect();
    assert_eq!(realms, ["realm = \"hairpin\" # default", "realm = \"found\" # /etc/hairpin/hairpin.toml:1"]);
}

#[test]
fn a_file_that_cannot_be_read_is_told_in_one_line() {
    let folder = Folder::new("config");
    let missing = folder.path().join("none").display().to_string();
    show(&["--config", &missing]).expect_one_line(2, &[&missing, "No such file or directory"]);
    let path = folder.path().display().to_string();
    show(&["--config", &path]).expect_one_line(2, &[&path, "it is not a file"]);
    let pipe = folder.path().join("pipe").display().to_string();
    run_for(Command::new("mkfifo").arg(&pipe), AT_ONCE).expect_success();
    show(&["--config", &pipe]).expect_one_line(2, &[&pipe, "it is not a file"]);
    fs::write(folder.path().join("latin"), b"# one\nrealm = 'caf\xe9'\n").unwrap();
    show(&["--config", &folder.path().join("latin").display().to_string()]).expect_one_line(2, &["latin:2: ", "UTF-8"]);
}

#[test]
fn secrets_come_from_files_and_are_told_to_nobody() {
    let (host, folder) = (Namespace::new("config"), Folder::new("config"));
    let users = write(&folder, "users", &format!("# who may relay\n\n{USER}:{PASSWORD}\n"));
    let secrets = write(&folder, "secrets", "northern-light\n");
    let tokens = write(&folder, "tokens", "token-of-the-house\n");
    let file = write(
        &folder,
        "hairpin.toml",
        &format!(
            "listen = ['127.0.0.1:{PORT}']\nxdp = 'off'\nlog = 'trace'\nuser-file = '{users}'\n\
             admin-token-file = '{tokens}'\ncredentials-token = 'token-of-the-guest'\n"
        ),
    );
    let variable = ("HAIRPIN_AUTH_SECRET_FILE", secrets.as_str());
    let mut command = host.command(binary());
    let relay = Relay::start_with(&host, command.args(["serve", "--config", &file]).envs([variable]));
    let local = "127.0.0.1:0".parse().unwrap();
    let server = ([127, 0, 0, 1], PORT).into();
    assert!(Client::new(&host, local, server, USER, PASSWORD).allocate().is_ok());
    let mut mint = Command::new(binary());
    mint.args(["credentials", "--name", "bob", "--auth-secret-file", &secrets]);
    let minted = run_for(&mut mint, AT_ONCE).expect_success();
    let value = |name: &str| minted.lines().find_map(|line| line.strip_prefix(name)).expect("two lines").to_owned();
    let (username, password) = (value("username: "), value("password: "));
    assert!(Client::new(&host, local, server, &username, &password).allocate().is_ok());
    let shown = run_for(host.command(binary()).args(["config", "--show", "--config", &file]).envs([variable]), AT_ONCE);
    assert_eq!(shown.stdout.matches("(hidden)").count(), 4, "{shown}");
    for finished in [relay.stop(), shown] {
        assert!(SECRETS.iter().all(|secret| !finished.to_string().contains(secret)), "{finished}");
    }
}

#[test]
fn secrets_that_are_wrong_are_told_by_file_and_line_without_them() {
    let folder = Folder::new("config");
    let bad = write(&folder, "users", "alice:fine\nopensesame\n");
    let finished = show(&["--user-file", &bad]);
    finished.expect_one_line(
        2,
        &[&format!(
            "{bad}:2: user: no colon: a line is NAME:PASSWORD, NAME:0xMD5 or NAME:hashed:md5=MD5[,sha256=SHA256]"
        )],
    );
    assert!(!finished.to_string().contains("opensesame"), "{finished}");
    for given in [&["--user", "opensesame"][..], &["--admin-token", "open sesame"]] {
        let finished = show(given);
        finished.expect_one_line(2, &[given[0]]);
        assert!(!finished.stderr.contains("sesame"), "{finished}");
    }
    let exposed = write(&folder, "exposed", "north\n");
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).unwrap();
    show(&["--auth-secret-file", &exposed])
        .expect_one_line(2, &["--auth-secret-file", &exposed, "can be read by other users", "chmod"]);
}

#[test]
fn a_file_with_secrets_for_everybody_is_warned_of() {
    let (host, folder) = (Namespace::new("config"), Folder::new("config"));
    let file = write(&folder, "hairpin.toml", "user = 'alice:in-a-lab'\nlisten = '127.0.0.1:3478'\nxdp = 'off'\n");
    let warned = || {
        let mut command = host.command(binary());
        let relay = Relay::start_with(&host, command.args(["serve", "--config", &file, "--log-format", "json"]));
        relay.stop().stderr.contains("can be read by other users")
    };
    assert!(!warned());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(warned());
}

#[test]
fn lines_of_the_log_are_objects_or_have_a_priority_where_that_is_asked_for() {
    let host = Namespace::new("config");
    let lines = |format: &str| {
        let options = ["--listen", "127.0.0.1:3478", "--xdp", "off", "--log", "debug", "--log-format", format];
        let stderr = Relay::start(&host, &options).stop().stderr;
        let lines: Vec<_> = stderr.lines().map(str::to_owned).collect();
        assert!(lines.iter().any(|line| line.contains("listening on udp 127.0.0.1:3478")), "{stderr}");
        lines
    };
    for line in lines("json") {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let is_text = |key: &str| object[key].is_string();
        assert!(is_text("timestamp") && is_text("level") && is_text("message"), "{line}");
        assert!(object["fields"].is_object(), "{line}");
    }
    for line in lines("journal") {
        let rest = line.strip_prefix('<').and_then(|line| line.split_once('>'));
        assert!(matches!(rest, Some(("3" | "4" | "6" | "7", text)) if !text.is_empty()), "{line}");
    }
    assert!(lines("text").iter().all(|line| line.contains("Z ")), "with the time");
}

#[test]
fn the_example_and_the_reference_are_what_the_command_line_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    for (option, path) in [("--example", "deploy/hairpin.toml"), ("--reference", "docs/configuration.md")] {
        let made = run_for(Command::new(binary()).args(["config", option]), AT_ONCE).expect_success();
        let kept = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(kept, made, "run `hairpin config {option} > {path}`");
    }
}

#[test]
fn the_example_changes_nothing_and_its_keys_are_all_that_the_help_names() {
    let folder = Folder::new("config");
    let example = run_for(Command::new(binary()).args(["config", "--example"]), AT_ONCE).expect_success();
    let with = show(&["--config", &write(&folder, "hairpin.toml", &example)]).expect_success();
    assert_eq!(with, show(&[]).expect_success());
    let help = run_for(Command::new(binary()).args(["serve", "--help"]), AT_ONCE).expect_success();
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let names = flags.map(|flag| flag.split([' ', '[', '=']).next().unwrap_or_default().to_owned());
    let mut named: Vec<_> = names.filter(|name| name != "config").collect();
    let mut keys = keys();
    named.sort_unstable();
    keys.sort_unstable();
    assert_eq!(keys, named);
}

#[test]
fn output_that_is_lost_is_told_and_a_reader_that_has_gone_is_not() {
    let folder = Folder::new("config");
    let coturn = write(&folder, "turnserver.conf", "realm=north\nuser=alice:opensesame\n");
    let check = ["check", "--xdp", "off", "--listen", "127.0.0.1:3478", "--relay-address", "127.0.0.1"];
    for arguments in [
        &["config", "--example"][..],
        &["config", "--reference"],
        &["config", "--show", "--relay-address", "127.0.0.1"],
        &check,
        &[&check[..], &["--json"]].concat(),
        &["import-coturn", &coturn],
        &["credentials", "--auth-secret", "north"],
    ] {
        let run = |stdout: Stdio| {
            let mut command = Command::new(binary());
            command.args(arguments).env("HAIRPIN_CONFIG", "/dev/null").stdout(stdout).stderr(Stdio::piped());
            let output = command.spawn().expect("it starts").wait_with_output().expect("it ends");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let full = fs::File::options().write(true).open("/dev/full").expect("every host has it");
        let (code, complaint) = run(full.into());
        assert_eq!(code, Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.contains("hairpin: standard output: "), "{arguments:?}: {complaint}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (code, complaint) = run(writer.into());
        assert!(code.is_some_and(|code| code < 2), "{arguments:?}: {complaint}");
        assert!(!complaint.contains("panic") && !complaint.contains("standard output"), "{arguments:?}: {complaint}");
    }
}

/// The keys of the example file.
fn keys() -> Vec<String> {
    let example = run_for(Command::new(binary()).args(["config", "--example"]), AT_ONCE).expect_success();
    let keys = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    keys.map(|(key, _)| key.to_owned()).filter(|key| !key.starts_with(' ')).collect()
}

/// What the relay would be told with these flags.
fn show(flags: &[&str]) -> Finished {
    let mut command = Command::new(binary());
    command.args(["config", "--show", "--relay-address", "127.0.0.1"]).args(flags).env("HAIRPIN_CONFIG", "/dev/null");
    run_for(&mut command, AT_ONCE)
}

/// A file that only its owner may read.
fn write(folder: &Folder, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, text).expect("a folder of our own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of our own");
    path.display().to_string()
}

/// The number of the line that begins so.
fn line_of(text: &str, beginning: &str) -> usize {
    text.lines().position(|line| line.starts_with(beginning)).map_or(0, |at| at + 1)
}
