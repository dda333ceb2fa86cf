//! Any text is a file of users or is refused, without a word of it; what is read of a user can be written as a line with
//! keys, which is read as the same user.

#![no_main]

use hairpin_users::users_file::{Secret, hashed_line, parse_user, parse_users};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(input) else { return Corpus::Reject };
    for line in text.lines() {
        check(line);
    }
    match parse_users(text) {
        Ok(users) => assert!(users.len() <= text.lines().count()),
        Err(error) => {
            let line = text.strip_prefix('\u{feff}').unwrap_or(text).lines().nth(error.line - 1);
            assert_eq!(line.map(parse_user), Some(Err(error.error)), "the line that is named is the one");
        }
    }
    Corpus::Keep
});

fn check(line: &str) {
    let Ok(user) = parse_user(line) else { return };
    assert!(!user.name.is_empty() && user.name.len() < 509 && !user.name.contains([':', '\0', '\n', '\r']));
    let _ = user.keys("realm");
    let Secret::Password(password) = &user.secret else { return };
    assert_eq!(line, format!("{}:{password}", user.name));
    match hashed_line(&user.name, "realm", password) {
        Ok(hashed) => {
            let users = parse_users(&hashed).expect("a line of a file");
            let [again] = &users[..] else { panic!("{hashed:?}: {users:?}") };
            assert_eq!(again.name, user.name);
            assert!(matches!(again.secret, Secret::Keys { sha256: Some(_), .. }));
        }
        Err(_) => assert!(user.name.trim_start().is_empty() || user.name.trim_start().starts_with('#')),
    }
}
