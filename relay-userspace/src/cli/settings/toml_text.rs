//! Settings as they are written in the file.

use std::fmt::Write as _;

use super::options::{Kind, Opt};

/// The value, or the list of values, of an option.
pub(super) fn value(option: &Opt, values: &[impl AsRef<str>]) -> String {
    let values: Vec<String> = values.iter().map(|value| single(option, value.as_ref())).collect();
    if option.is_list() { format!("[{}]", values.join(", ")) } else { values.join(", ") }
}

fn single(option: &Opt, value: &str) -> String {
    let is_bare = match option.kind() {
        Kind::Switch => true,
        Kind::Count | Kind::Rate => !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()),
        Kind::Text => false,
    };
    if is_bare { value.to_owned() } else { string(value) }
}

/// A basic string of TOML.
pub(in crate::cli) fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Words in lines of at most so many characters, each with a prefix.
pub(in crate::cli) fn wrapped(text: &str, prefix: &str, width: usize) -> String {
    let mut lines = vec![String::from(prefix)];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line + 1 + word.chars().count() > width && line > prefix.len() {
            lines.push(String::from(prefix));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::options::find;

    #[test]
    fn values_are_written_as_toml_reads_them() {
        let text = |name: &str, values: &[&str]| value(find(name).unwrap(), values);
        assert_eq!(text("realm", &["a\"b\\c\nü"]), "\"a\\\"b\\\\c\\u000aü\"");
        assert_eq!(text("shards", &["4"]), "4");
        assert_eq!(text("relay-bit-rate", &["500k"]), "\"500k\"");
        assert_eq!(text("relay-bit-rate", &["500"]), "500");
        assert_eq!(text("tcp-relay", &["true"]), "true");
        assert_eq!(text("listen", &["a", "b"]), "[\"a\", \"b\"]");
        assert_eq!(text("user", &[]), "[]");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", "#", 9), "# one two\n# three");
        assert_eq!(wrapped("unbreakable", "#", 5), "# unbreakable");
    }
}
