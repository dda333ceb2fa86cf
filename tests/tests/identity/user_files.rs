//! A file with users that is changed while the relay runs.

use std::thread;
use std::time::Duration;

use hairpin_tests::lab::{Folder, Namespace};

use crate::bed::{Bed, file, wait};

const ALICE: &str = "alice:sesame\n";
const BOB: &str = "bob:open-wide\n";
/// In this time the relay looks at its files more than once.
const LOOKS: Duration = Duration::from_secs(5);

#[test]
fn who_is_added_is_let_in_and_who_is_removed_can_do_nothing_more() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let users = file(&folder, "users", ALICE);
    let bed = Bed::at_home(&host, &folder, &format!("--user-file {}", users.display()));
    let mut alice = bed.client("alice", "sesame");
    alice.allocate().expect("alice is a user");
    let mut bob = bed.client("bob", "open-wide");
    assert_eq!(bob.allocate().expect_err("bob is nobody").0, 401);

    file(&folder, "users", &format!("{ALICE}{BOB}"));
    wait("bob is let in", || bob.allocate().is_ok());
    alice.refresh(700).expect("nothing has changed for alice");

    // The same name with another password is somebody else.
    file(&folder, "users", &format!("alice:another\n{BOB}"));
    wait("alice is not who she was", || alice.refresh(700).is_err());
    assert_eq!(alice.refresh(700).expect_err("it stays so").0, 401);
    bed.client("alice", "another").allocate().expect("this is alice now");

    // Also where another file takes the place of the first.
    let other = file(&folder, "other", ALICE);
    std::fs::rename(other, &users).expect("the folder is ours");
    wait("bob is nobody again", || bob.refresh(700).is_err());
    assert_eq!(bob.refresh(700).expect_err("it stays so").0, 401);
    alice.refresh(700).expect("alice is who she was");
    assert_eq!(bed.metrics().sum("hairpin_config_reloads_total", &[]), 0, "nobody has asked for it");
    bed.stop();
}

#[test]
fn secrets_and_token_keys_are_followed_too() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let secrets = file(&folder, "secrets", "north\n");
    let bed = Bed::at_home(&host, &folder, &format!("--auth-secret-file {}", secrets.display()));
    let minted = |secret: &str| {
        let (user, password) = hairpin_proto::turn::Credentials::mint(secret, "alice", 4_000_000_000);
        bed.client(&user, &password)
    };
    let mut before = minted("north");
    before.allocate().expect("the secret is the right one");
    file(&folder, "secrets", "south\nnorth\n");
    let mut next = minted("south");
    wait("another secret is added", || next.allocate().is_ok());
    before.refresh(700).expect("it is still a secret");
    file(&folder, "secrets", "south\n");
    wait("the first one is removed", || before.refresh(700).is_err());
    next.refresh(700).expect("it is still a secret");
    bed.stop();
}

#[test]
fn a_broken_file_is_told_of_once_and_changes_nothing() {
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let users = file(&folder, "users", ALICE);
    let other = file(&folder, "secrets", "north\n");
    let files = format!("--user-file {} --auth-secret-file {}", users.display(), other.display());
    let mut bed = Bed::at_home(&host, &folder, &files);
    let mut alice = bed.client("alice", "sesame");
    alice.allocate().expect("alice is a user");
    assert_eq!(bed.warnings(), [] as [String; 0]);

    file(&folder, "users", &format!("{BOB}no colon in this line\n"));
    wait("the status warns", || bed.warnings().iter().any(|warning| warning.contains("users")));
    let warnings = bed.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("no colon"), "{warnings:?}");
    assert!(!warnings[0].contains("open-wide") && !warnings[0].contains("in this line"), "{warnings:?}");
    let text = bed.text(&["status"]);
    assert!(text.contains("the users of before stay"), "{text}");
    alice.refresh(700).expect("nothing has changed");
    bed.client("alice", "sesame").allocate().expect("nothing has changed");
    assert_eq!(bed.client("bob", "open-wide").allocate().expect_err("no part of it is used").0, 401);
    let told = |bed: &mut Bed<'_>| {
        let log = bed.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("cannot be used")).map(str::to_owned).collect();
        assert!(!log.contains("open-wide"), "{log}");
        lines
    };
    // For some looks at it.
    thread::sleep(LOOKS);
    assert_eq!(told(&mut bed).len(), 1);

    // What is broken in another way is told of again.
    file(&folder, "users", "");
    file(&folder, "secrets", "\n");
    std::fs::remove_file(&users).expect("the folder is ours");
    wait("another thing is wrong", || told(&mut bed).len() > 1);
    wait("the status tells of that alone", || {
        let warnings = bed.warnings();
        warnings.len() == 1 && !warnings[0].contains("no colon")
    });
    alice.refresh(700).expect("nothing has changed");

    file(&folder, "secrets", "north\n");
    file(&folder, "users", BOB);
    wait("bob is let in", || bed.client("bob", "open-wide").allocate().is_ok());
    wait("nobody is warned any more", || bed.warnings().is_empty());
    assert_eq!(alice.refresh(700).expect_err("alice is gone").0, 401);
    assert!(told(&mut bed).len() <= 3, "{:?}", told(&mut bed));
}
