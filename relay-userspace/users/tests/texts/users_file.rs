//! Files of users.

use hairpin_proto::stun::{
    Class, Integrity, Message, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, TransactionId,
};
use hairpin_users::users_file::{
    Secret, UserLine, UserLineError, UsersFileError, hashed_line, parse_user, parse_users,
};
use proptest::prelude::*;

const MD5: &str = "3996dcb60afa9830c4618281d70bd605";
const SHA256: &str = "a0fc7d7b046400c7f5560948e3c37978def589a2994714047beb8825052df940";

fn password(text: &str) -> Secret {
    Secret::Password(text.to_owned())
}

/// Whether a user signs as one does who knows the password.
fn signs(keys: &PasswordKeys, algorithm: PasswordAlgorithm, name: &str, password: &str) -> bool {
    let mut bytes = Vec::new();
    MessageBuilder::new(&mut bytes, Class::Request, Method::BINDING, TransactionId([7; 12]))
        .with_integrity(&algorithm.derive(name, "north.gov", password), Integrity::Sha256)
        .finish(false);
    let message = Message::parse(&bytes).unwrap();
    keys.for_algorithm(algorithm).next().is_some_and(|key| message.verify_integrity(key))
}

#[test]
fn a_file_has_users_and_what_is_none() {
    let text = "\u{feff}# users\n\nalice:sesame\r\n   # more\n \t\nbob:open: wide \ncarol::\n d # e:f\n";
    let users: Vec<_> = parse_users(text).unwrap().into_iter().map(|user| (user.name, user.secret)).collect();
    let expected = [("alice", "sesame"), ("bob", "open: wide "), ("carol", ":"), (" d # e", "f")];
    assert_eq!(users, expected.map(|(name, text)| (name.to_owned(), password(text))));
    assert_eq!(parse_users("").unwrap(), []);
}

#[test]
fn keys_are_those_of_the_password() {
    for (line, has_md5, has_sha256) in [
        ("alice:sesame".to_owned(), true, true),
        (format!("alice:0x{MD5}"), true, false),
        (format!("alice:0x{}", MD5.to_uppercase()), true, false),
        (format!("alice:hashed:md5={MD5}"), true, false),
        (hashed_line("alice", "north.gov", "sesame").unwrap(), true, true),
    ] {
        let keys = parse_user(&line).unwrap_or_else(|error| panic!("{line}: {error}")).keys("north.gov");
        assert_eq!(signs(&keys, PasswordAlgorithm::Md5, "alice", "sesame"), has_md5, "{line}");
        assert_eq!(signs(&keys, PasswordAlgorithm::Sha256, "alice", "sesame"), has_sha256, "{line}");
        assert!(!signs(&keys, PasswordAlgorithm::Md5, "alice", "Sesame"), "{line}");
    }
    // printf %s carol:north.gov:sesame | sha256sum
    let carol = hashed_line("carol", "north.gov", "sesame").unwrap();
    assert!(carol.ends_with(&format!(",sha256={SHA256}")), "{carol}");
    assert_eq!(parse_user(&carol).unwrap().name, "carol");
}

#[test]
fn what_is_no_user_is_told_by_line() {
    use UserLineError as Error;
    let long = format!("{}:pw", "x".repeat(509));
    for (line, error) in [
        ("alice", Error::NoColon),
        (":sesame", Error::NoName),
        (":", Error::NoName),
        ("alice:", Error::NoPassword),
        ("al\tice:sesame", Error::Name),
        ("al\0ice:sesame", Error::Name),
        ("\u{feff}alice:sesame", Error::Name),
        (&long, Error::Name),
        ("alice:0x", Error::Key),
        ("alice:0xsesame", Error::Key),
        (&format!("alice:0x{MD5}0"), Error::Key),
        (&format!("alice:0x{}", &MD5[1..]), Error::Key),
        (&format!("alice:0x{}+", &MD5[1..]), Error::Key),
        ("alice:hashed:", Error::Key),
        ("alice:hashed:sesame", Error::Key),
        (&format!("alice:hashed:{MD5}"), Error::Key),
        (&format!("alice:hashed:md5={MD5},"), Error::Key),
        (&format!("alice:hashed:md5={MD5},sha256={MD5}"), Error::Key),
        (&format!("alice:hashed:sha256={SHA256}"), Error::Key),
        (&format!("alice:hashed:md5={MD5},sha256={SHA256},x"), Error::Key),
    ] {
        assert_eq!(parse_user(line), Err(error), "{line}");
        let told = parse_users(&format!("# users\nbob:pw\n{line}\n")).unwrap_err();
        assert_eq!(told, UsersFileError { line: 3, error });
        let text = told.to_string();
        assert!(text.starts_with("line 3: ") && !text.contains("sesame") && !text.contains(MD5), "{text}");
    }
    assert!(parse_user(&format!("{}:pw", "x".repeat(508))).is_ok());
    assert!(parse_user(&format!("alice:0x{MD5}  ")).is_ok(), "blanks behind a key are none of it");
}

#[test]
fn no_line_is_made_that_would_be_another() {
    for name in ["", "a:b", "#alice", " #alice", "  ", "\u{feff}#alice", "al\nice", &"x".repeat(509)] {
        assert!(hashed_line(name, "north.gov", "sesame").is_err(), "{name:?}");
    }
    assert_eq!(hashed_line("alice", "north.gov", ""), Err(UserLineError::NoPassword));
}

#[test]
fn no_password_is_printed() {
    for line in ["alice:sesame", &format!("alice:0x{MD5}")] {
        let user = parse_user(line).unwrap();
        let printed = format!("{user:?} {:?}", user.secret);
        assert!(!printed.contains("sesame") && !printed.contains("57, 150"), "{printed}");
    }
}

proptest! {
    #[test]
    fn a_password_may_be_anything_on_a_line(name in "[^:#\\p{Cc}][^:\\p{Cc}]{0,60}", text in "[^\\r\\n]{1,60}") {
        prop_assume!(!name.trim().is_empty() && !name.trim_start().starts_with('#') && !name.starts_with('\u{feff}'));
        prop_assume!(!text.starts_with("0x") && !text.starts_with("hashed:"));
        let user = UserLine { name: name.clone(), secret: password(&text) };
        prop_assert_eq!(parse_users(&format!("{name}:{text}\n")).unwrap(), [user]);
    }

    #[test]
    fn a_hashed_line_proves_what_the_password_proves(name in "[^:#\\p{Cc}][^:\\p{Cc}]{0,60}", text in "\\PC{1,60}") {
        prop_assume!(!name.trim().is_empty() && !name.trim_start().starts_with('#') && !name.starts_with('\u{feff}'));
        let keys = parse_user(&hashed_line(&name, "north.gov", &text).unwrap()).unwrap().keys("north.gov");
        let written = name.clone();
        // Names are prepared where they come in.
        let name = hairpin_proto::stun::opaque_string(&name).into_owned();
        let known = UserLine { name: written, secret: password(&text) }.keys("north.gov");
        prop_assert!(signs(&known, PasswordAlgorithm::Md5, &name, &text));
        prop_assert!(signs(&keys, PasswordAlgorithm::Md5, &name, &text));
        prop_assert!(signs(&keys, PasswordAlgorithm::Sha256, &name, &text));
    }
}
