//! Lines of a turnserver.conf, taken apart as coturn does it: a name, then blanks and equals signs, then the value. A
//! number sign begins a comment only where a line begins.

/// Coturn reads no more of a line at once; what is left of it is a line to it.
const LONGEST: usize = 1022;

/// A line with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'t> {
    /// Where it stands in the file; the first line is 1.
    pub(super) number: usize,
    /// The option's name, as it was written.
    pub(super) name: &'t str,
    /// What follows it, without quotes around it; blanks at its end are part of it.
    pub(super) value: &'t str,
}

/// The lines that say something.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().zip(1..).filter_map(|(line, number)| Line::parse(line, number))
}

impl<'t> Line<'t> {
    fn parse(line: &'t str, number: usize) -> Option<Self> {
        let line = line.trim_start_matches([' ', '\t']).trim_end_matches('\r');
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let is_between = |c| matches!(c, '=' | ' ' | '\t');
        let (name, rest) = line.split_at(line.find(is_between).unwrap_or(line.len()));
        let value = rest.trim_start_matches(is_between);
        let value = value.strip_prefix('"').map_or(value, |quoted| {
            let quoted = quoted.trim_end_matches([' ', '\t']);
            quoted.strip_suffix('"').unwrap_or(quoted)
        });
        Some(Self { number, name, value })
    }

    /// Whether coturn would have read it in pieces.
    pub(super) fn is_too_long(&self) -> bool {
        self.name.len() + self.value.len() > LONGEST
    }

    /// The value without blanks around it.
    pub(super) fn trimmed(&self) -> &'t str {
        self.value.trim()
    }

    /// What a switch says: coturn looks at the first letter, at the second of "on" and "off", and stops at anything else.
    pub(super) fn switch(&self) -> Option<bool> {
        let mut letters = self.value.chars().map(|c| c.to_ascii_lowercase());
        match letters.next() {
            None | Some('y' | 't' | '1'..='9') => Some(true),
            Some('n' | 'f' | '0') => Some(false),
            Some('o') => letters.next().map(|c| c == 'n'),
            Some(_) => None,
        }
    }

    /// What a number is to coturn: the digits that it begins with, none are 0.
    pub(super) fn number(&self) -> u64 {
        let digits = self.trimmed().trim_start_matches('+');
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        if end == 0 { 0 } else { digits[..end].parse().unwrap_or(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (&str, &str) {
        let line = lines(text).next().unwrap();
        (line.name, line.value)
    }

    #[test]
    fn a_name_and_a_value_are_told_apart_by_blanks_and_equals_signs() {
        for text in ["realm=a", "realm a", "realm = a", "\trealm\t=\ta", "realm==a", "realm=\"a\"", "realm=\"a\" \r\n"]
        {
            assert_eq!(one(text), ("realm", "a"), "{text:?}");
        }
        assert_eq!(one("no-tcp"), ("no-tcp", ""));
        assert_eq!(one("realm=\"a b"), ("realm", "a b"));
        assert_eq!(one("user=alice:a=b"), ("user", "alice:a=b"));
    }

    #[test]
    fn a_comment_is_a_line_of_its_own() {
        assert_eq!(lines("# realm=a\n   #b\n\n \t\n").count(), 0);
        assert_eq!(one("realm=a # b"), ("realm", "a # b"));
        let numbers: Vec<_> = lines("#\nno-tcp\n\nno-udp").map(|line| line.number).collect();
        assert_eq!(numbers, [2, 4]);
    }

    #[test]
    fn switches_and_numbers_mean_what_they_mean_to_coturn() {
        let switch = |value| Line { number: 1, name: "no-tcp", value }.switch();
        for yes in ["", "1", "yes", "True", "on", "ON"] {
            assert_eq!(switch(yes), Some(true), "{yes}");
        }
        for no in ["0", "no", "False", "off", "OFF"] {
            assert_eq!(switch(no), Some(false), "{no}");
        }
        assert_eq!(switch("# why"), None);
        let number = |value| Line { number: 1, name: "listening-port", value }.number();
        let numbers = ["3478", " 443 # https", "", "many", "99999999999999999999"].map(number);
        assert_eq!(numbers, [3478, 443, 0, 0, u64::MAX]);
    }
}
