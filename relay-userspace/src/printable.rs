//! Text that others have made, as it may stand on a terminal: what a terminal would obey, or would not show, is spelled out.

use std::fmt::Write as _;

/// Whether a character moves the cursor, turns the direction of others, or is not seen.
fn is_hidden(character: char) -> bool {
    let is_unseen = matches!(character,
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}');
    is_unseen || character.is_control()
}

/// For people.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// A document of JSON that means the same. Such characters stand in its strings only, but for the blanks of ASCII.
pub(crate) fn json(document: &str) -> String {
    let mut clean = String::with_capacity(document.len());
    for character in document.chars() {
        if is_hidden(character) && !character.is_ascii_whitespace() {
            // None of them has more than 16 bits. Writing to a string never fails.
            let _ = write!(clean, "\\u{:04x}", u32::from(character));
        } else {
            clean.push(character);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_stranger_calls_himself_moves_the_cursor() {
        assert_eq!(clean("alice"), "alice");
        assert_eq!(clean("zoë ☂"), "zoë ☂");
        assert_eq!(clean("a\x1b[2Jb\n\u{202E}c\u{9b}"), "a\\u{1b}[2Jb\\u{a}\\u{202e}c\\u{9b}");
    }

    #[test]
    fn json_means_the_same_without_what_a_terminal_obeys() {
        let value = serde_json::json!({ "zoë\n": "a\u{9b}2J\u{202E}b\u{2066}\u{2069}\u{2028}\u{2029}\u{7f}\x1b" });
        let document = serde_json::to_string_pretty(&value).unwrap();
        let clean = json(&document);
        assert!(clean.chars().all(|character| character == '\n' || !is_hidden(character)), "{clean:?}");
        assert!(clean.contains("zoë") && clean.contains("a\\u009b2J\\u202eb\\u2066"), "{clean}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&clean).unwrap(), value);
    }
}
