//! The file: TOML whose keys are the options, one beside the other.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeString, DeTable, DeValue};

use super::layer::{Layer, Written};
use super::nearest::nearest;
use super::options::{self, Kind, Opt};
use super::problem::{Place, Problem};
use super::read;

/// Reads the file. What it says wrongly is in the layer.
pub(super) fn layer(path: &Arc<Path>) -> Layer {
    match read::read(path) {
        Ok(read::Text { text, is_exposed }) => {
            let mut layer = parse(path, &text);
            layer.warnings.extend(is_exposed.then(|| exposed(path, &layer)).flatten());
            layer
        }
        Err(read::Unreadable { line: Some(line), why }) => Layer::unread(Problem::of_line(path, line, why)),
        Err(read::Unreadable { line: None, why }) => Layer::unread(Problem::of_file(path, why)),
    }
}

/// The complaint about a file for everybody that holds what is not.
fn exposed(path: &Path, layer: &Layer) -> Option<String> {
    let secret = options::keys().find(|option| option.is_secret() && layer.get(option).is_some())?;
    Some(format!(
        "{} can be read by other users and holds a secret ({}): run chmod o= on it, or use {}-file",
        path.display(),
        secret.name(),
        secret.name()
    ))
}

/// What a text says that was read from the file.
pub(super) fn parse(path: &Arc<Path>, text: &str) -> Layer {
    let mut reader = Reader { path, text, found: Vec::new(), layer: Layer::default() };
    let (table, errors) = DeTable::parse_recoverable(text);
    reader.layer.is_unread = !errors.is_empty();
    reader.read(table.get_ref());
    let broken = errors.iter().map(|error| {
        let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        (reader.line(error.span().map_or(0, |span| span.start)), what)
    });
    let broken: Vec<_> = broken.collect();
    // What else such a line says was guessed.
    let is_whole = |line: usize| broken.iter().all(|(other, _)| *other != line);
    reader.found.retain(|(line, _)| is_whole(*line));
    reader.layer.retain(|value| !matches!(value.place, Place::Line(_, line) if !is_whole(line)));
    reader.found.extend(broken);
    reader.found.sort_by_key(|(line, _)| *line);
    let problems = reader.found.into_iter().map(|(line, what)| Problem::of_line(path, line, what));
    reader.layer.problems.extend(problems);
    reader.layer
}

struct Reader<'t> {
    path: &'t Arc<Path>,
    text: &'t str,
    /// What is wrong, with its line.
    found: Vec<(usize, String)>,
    layer: Layer,
}

impl Reader<'_> {
    fn read(&mut self, table: &DeTable<'_>) {
        // In the order of the file, as people read it.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            self.entry(key, value);
        }
    }

    fn entry(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        if self.is_header(at) {
            self.complain(at, format!("[{name}] is a section, and there are none: leave this line out"));
            // The keys below it are meant all the same.
            for table in tables(value.get_ref()) {
                self.read(table);
            }
            return;
        }
        let Some(option) = options::find(name) else {
            let near = nearest(name, options::keys().map(Opt::name), (name.len() / 3).max(2));
            let hint = near.map_or_else(
                || "`hairpin config --example` shows all that there are".to_owned(),
                |near| format!("is {near} meant?"),
            );
            self.complain(at, format!("{name} is no option; {hint}"));
            return;
        };
        if option.name() == options::CONFIG {
            self.complain(at, format!("{name} cannot be said in the file: use --config or {}", option.variable()));
            return;
        }
        let values = match value.get_ref() {
            DeValue::Array(values) if option.is_list() => self.list(option, values),
            single => self.value(option, single, at).into_iter().collect(),
        };
        self.layer.set(option.name(), values);
    }

    fn list(&mut self, option: &Opt, values: &DeArray<'_>) -> Vec<Written> {
        values.iter().filter_map(|value| self.value(option, value.get_ref(), value.span().start)).collect()
    }

    /// One value as a flag would have it, if it is of a type that the option takes.
    fn value(&mut self, option: &Opt, value: &DeValue<'_>, at: usize) -> Option<Written> {
        let text = match (value, option.kind()) {
            (DeValue::Boolean(value), Kind::Switch) => value.to_string(),
            (DeValue::Integer(value), Kind::Count | Kind::Rate) => decimal(value),
            (DeValue::String(text), Kind::Count | Kind::Rate | Kind::Text) => text.to_string(),
            (other, kind) => {
                let allowed = match kind {
                    Kind::Switch => "true or false",
                    Kind::Count => "a number",
                    Kind::Rate => "a number, or a string such as \"500k\" or \"off\"",
                    Kind::Text if option.is_list() => "a string or a list of strings",
                    Kind::Text => "a string",
                };
                self.complain(at, format!("{} must be {allowed}, not {}", option.name(), type_of(other)));
                self.layer.bad.push(options::find(option.name())?.name());
                return None;
            }
        };
        Some(Written { text: text.into(), place: Place::Line(Arc::clone(self.path), self.line(at)) })
    }

    fn complain(&mut self, at: usize, what: String) {
        self.found.push((self.line(at), what));
    }

    /// The line that a place in the text lies in.
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    /// Whether a key stands in the header of a section.
    fn is_header(&self, at: usize) -> bool {
        let before = self.text.get(..at).unwrap_or_default();
        before.rsplit('\n').next().unwrap_or_default().trim_start().starts_with('[')
    }
}

/// The tables of a section, or of sections with the same name.
fn tables<'v, 'i>(value: &'v DeValue<'i>) -> Vec<&'v DeTable<'i>> {
    match value {
        DeValue::Table(table) => vec![table],
        DeValue::Array(values) => values.iter().flat_map(|value| tables(value.get_ref())).collect(),
        _ => Vec::new(),
    }
}

/// As a flag would have it; TOML knows other bases, too.
fn decimal(integer: &DeInteger<'_>) -> String {
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string())
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let path: Arc<Path> = Path::new("f").into();
        parse(&path, text).problems.iter().map(ToString::to_string).collect()
    }

    fn said(text: &str, option: &str) -> Vec<(String, usize)> {
        let path: Arc<Path> = Path::new("f").into();
        let layer = parse(&path, text);
        assert_eq!(layer.problems, [], "{text}");
        let values = layer.get(options::find(option).unwrap()).unwrap();
        let line = |place: &Place| if let Place::Line(_, line) = place { *line } else { 0 };
        values.iter().map(|value| (value.text.to_str().unwrap().to_owned(), line(&value.place))).collect()
    }

    #[test]
    fn values_are_what_a_flag_would_have_and_know_their_line() {
        assert_eq!(said("realm = \"a\"", "realm"), [("a".to_owned(), 1)]);
        assert_eq!(said("\n# two\nshards = 0x10\n", "shards"), [("16".to_owned(), 3)]);
        assert_eq!(said("shards = '4'", "shards"), [("4".to_owned(), 1)]);
        assert_eq!(said("relay-bit-rate = 20_000_000", "relay-bit-rate"), [("20000000".to_owned(), 1)]);
        assert_eq!(said("relay-bit-rate = \"off\"", "relay-bit-rate"), [("off".to_owned(), 1)]);
        assert_eq!(said("tcp-relay = true", "tcp-relay"), [("true".to_owned(), 1)]);
        assert_eq!(said("user = 'a:b'", "user"), [("a:b".to_owned(), 1)]);
        assert_eq!(
            said("user = [\n  'a:b', # one\n  'c:d',\n]", "user"),
            [("a:b".to_owned(), 2), ("c:d".to_owned(), 3)]
        );
        assert_eq!(said("user = []", "user"), []);
    }

    #[test]
    fn a_wrong_type_is_told_with_those_that_are_right() {
        for (text, problem) in [
            ("realm = 1", "f:1: realm must be a string, not a number"),
            ("shards = 1.5", "f:1: shards must be a number, not a number with a fraction"),
            ("shards = [1]", "f:1: shards must be a number, not a list"),
            ("tcp-relay = 'yes'", "f:1: tcp-relay must be true or false, not a string"),
            ("\nuser = 7", "f:2: user must be a string or a list of strings, not a number"),
            ("user = [\n'a:b',\n7]", "f:3: user must be a string or a list of strings, not a number"),
            ("user = { alice = 'x' }", "f:1: user must be a string or a list of strings, not a table"),
            ("user.alice = 'x'", "f:1: user must be a string or a list of strings, not a table"),
            ("realm = 1979-05-27", "f:1: realm must be a string, not a date"),
            (
                "relay-bit-rate = false",
                "f:1: relay-bit-rate must be a number, or a string such as \"500k\" or \"off\", not true or false",
            ),
        ] {
            assert_eq!(problems(text), [problem], "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_one() {
        for (text, problem) in [
            ("relay_ports = ''", "f:1: relay_ports is no option; is relay-ports meant?"),
            ("listeners = []", "f:1: listeners is no option; is listen meant?"),
            ("a = 1\n", "f:1: a is no option; `hairpin config --example` shows all that there are"),
            ("config = 'x'", "f:1: config cannot be said in the file: use --config or HAIRPIN_CONFIG"),
        ] {
            assert_eq!(problems(text), [problem], "{text}");
        }
    }

    #[test]
    fn a_section_is_told_and_what_stands_in_it_is_looked_at() {
        let text = "realm = 1\n[limits]\nshards = true\n[[listen]]\nlisten = 4\n[a.b]\nxdp = 1\n";
        assert_eq!(
            problems(text),
            [
                "f:1: realm must be a string, not a number",
                "f:2: [limits] is a section, and there are none: leave this line out",
                "f:3: shards must be a number, not true or false",
                "f:4: [listen] is a section, and there are none: leave this line out",
                "f:5: listen must be a string or a list of strings, not a number",
                "f:6: [a] is a section, and there are none: leave this line out",
                "f:6: [b] is a section, and there are none: leave this line out",
                "f:7: xdp must be a string, not a number",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line_and_before_it_all_else() {
        let told = problems("no = 1\nshards = true\nrealm = \n\nxdp 'off'\n");
        let lines: Vec<_> = told.iter().map(|problem| problem.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["f:1:", "f:2:", "f:3:", "f:5:"], "{told:#?}");
        assert_eq!(problems("shards = 4\n\nshards = 5"), ["f:3: duplicate key"]);
        assert_eq!(problems("user = ['a:b',\n").len(), 1);
    }
}
