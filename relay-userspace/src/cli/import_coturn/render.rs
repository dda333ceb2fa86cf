//! Writes hairpin's file: TOML, each setting behind its comments, and at the end what was said of lines that are not in it.

use std::fmt::{self, Write as _};

use crate::cli::settings::toml_text::{string, wrapped};

/// Settings that belong together.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) settings: Vec<Setting>,
}

/// A key with what it is set to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) value: Value,
    /// What to know about it.
    pub(super) comments: Vec<String>,
    /// Whether it holds; else it is a comment itself, a hint for whoever needs it.
    pub(super) holds: bool,
}

/// What a key is set to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    Number(u64),
    Text(String),
    List(Vec<String>),
}

/// What became of a line that is not simply translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Where it stands; 0 is about the whole file.
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// How much attention it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Coturn itself takes no notice of the line, or fails at it.
    Mistake,
    /// There is nothing like it.
    Missing,
    /// There is something like it that is not the same.
    Differs,
    /// Nothing is lost without it.
    Ignored,
}

impl Note {
    pub(super) fn new(line: usize, kind: Kind, text: impl Into<String>) -> Self {
        Self { line, kind, text: text.into() }
    }

    /// What needs a look first, and what does not behind it, each in the order of the file.
    pub(super) fn order(&self) -> (bool, usize) {
        (self.kind == Kind::Ignored, self.line)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        let kind = match self.kind {
            Kind::Mistake => "mistake",
            Kind::Missing => "no counterpart",
            Kind::Differs => "not the same",
            Kind::Ignored => "not needed",
        };
        write!(f, "{kind}: {}", self.text)
    }
}

impl Setting {
    pub(super) fn new(key: &'static str, value: Value) -> Self {
        Self { key, value, comments: Vec::new(), holds: true }
    }

    /// A setting that is shown, and does not hold.
    pub(super) fn hint(key: &'static str, value: Value) -> Self {
        Self { holds: false, ..Self::new(key, value) }
    }

    pub(super) fn comment(mut self, text: impl Into<String>) -> Self {
        self.comments.push(text.into());
        self
    }
}

/// The whole file.
pub(super) fn render(name: &str, sections: &[Section], notes: &[Note]) -> String {
    let mut text = format!("# Made from {} by `hairpin import-coturn`.\n", plain(name));
    for Section { title, settings } in sections.iter().filter(|section| !section.settings.is_empty()) {
        let _ = write!(text, "\n# {title}\n");
        for setting in settings {
            write_setting(&mut text, setting);
        }
    }
    for (kinds, title) in [
        (Kind::Mistake..=Kind::Differs, "Lines of turnserver.conf that need a look"),
        (Kind::Ignored..=Kind::Ignored, "Lines of turnserver.conf that are not needed"),
    ] {
        let of_kind: Vec<_> = notes.iter().filter(|note| kinds.contains(&note.kind)).collect();
        if !of_kind.is_empty() {
            let _ = write!(text, "\n# {title}:\n");
            for note in of_kind {
                comment(&mut text, &format!("- {note}"));
            }
        }
    }
    text
}

fn write_setting(text: &mut String, Setting { key, value, comments, holds }: &Setting) {
    for line in comments {
        comment(text, line);
    }
    let value = match value {
        Value::Switch(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => string(text),
        Value::List(values) if values.len() == 1 => format!("[{}]", string(&values[0])),
        Value::List(values) => {
            let lines: Vec<_> = values.iter().map(|value| format!("    {},", string(value))).collect();
            format!("[\n{}\n]", lines.join("\n"))
        }
    };
    let mark = if *holds { "" } else { "# " };
    for line in format!("{key} = {value}").lines() {
        let _ = writeln!(text, "{mark}{line}");
    }
}

/// How long a line of a comment may be.
const WIDTH: usize = 100;

fn comment(text: &mut String, words: &str) {
    let _ = writeln!(text, "{}", wrapped(&plain(words), "#", WIDTH));
}

/// Without what would end a comment, or is not allowed in one.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_toml_whatever_the_strings_are() {
        let odd = "a\"b\\c\td\u{7f}\u{1}é".to_owned();
        let sections = [Section {
            title: "Users",
            settings: vec![
                Setting::new("realm", Value::Text(odd.clone())).comment("first\nsecond"),
                Setting::new("user", Value::List(vec![odd.clone(), "b".to_owned()])),
                Setting::hint("listen", Value::List(vec!["x".to_owned(), "y".to_owned()])),
            ],
        }];
        let notes = [Note::new(3, Kind::Missing, "nothing\nlike it")];
        let text = render("a\nb", &sections, &notes);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["realm"].as_str(), Some(odd.as_str()), "{text}");
        assert_eq!(table["user"].as_array().unwrap().len(), 2);
        assert_eq!(table.len(), 2, "a hint does not hold: {text}");
        assert!(text.contains("# - line 3: no counterpart: nothing like it\n"), "{text}");
    }
}
