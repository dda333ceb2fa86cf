//! The lists in `tests/rfc`: for what an RFC demands of a server, each names tests that exist, or says why there are none.
//!
//! How a list is written is said in `tests/rfc/README.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How often the key words of RFC 2119 stand in each RFC, and how many rows its list has at least.
///
/// Each of the key words has a place: in a row, or among those that a section has for others than servers.
const LISTS: [(u16, usize, usize); 12] = [
    (5780, 47, 25),
    (6062, 60, 34),
    (7635, 17, 7),
    (7675, 23, 6),
    (7983, 9, 1),
    (8016, 22, 9),
    (8445, 179, 45),
    (8489, 222, 80),
    (8656, 136, 50),
    (8838, 41, 4),
    (8839, 139, 60),
    (8840, 70, 4),
];
/// As the lists write them.
const LEVELS: [&str; 6] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "REQUIRED", "RECOMMENDED"];

#[derive(Debug, Default)]
struct List {
    sections: Vec<Section>,
}

#[derive(Debug, Default)]
struct Section {
    number: String,
    /// Key words in the section, and how many of them are about others than servers.
    words: usize,
    others: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Row {
    line: usize,
    level: String,
    /// How many key words it stands for.
    words: usize,
    statement: String,
    tests: Vec<String>,
    reason: Option<String>,
}

#[test]
fn every_row_names_tests_that_exist_or_says_why_there_are_none() {
    let known = tests_of_the_workspace();
    assert!(known.len() > 300, "only {} tests were found", known.len());
    let mut complaints = Vec::new();
    for (rfc, ..) in LISTS {
        for section in read(rfc).sections {
            let mut seen = BTreeSet::new();
            for row in section.rows {
                let place = format!("rfc{rfc}.md, line {}", row.line);
                if row.tests.is_empty() == row.reason.is_none() {
                    complaints.push(format!("{place}: either tests or a reason is needed, and not both"));
                }
                for test in row.tests.iter().filter(|test| !known.contains(*test)) {
                    complaints.push(format!("{place}: there is no test {test}"));
                }
                if row.reason.is_some_and(|reason| reason.len() < 10) {
                    complaints.push(format!("{place}: the reason says nothing"));
                }
                if !seen.insert((row.level, row.statement)) {
                    complaints.push(format!("{place}: the row is there twice"));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn no_key_word_of_an_rfc_is_forgotten() {
    for (rfc, words, least) in LISTS {
        let list = read(rfc);
        let numbers: BTreeSet<_> = list.sections.iter().map(|section| &section.number).collect();
        assert_eq!(numbers.len(), list.sections.len(), "RFC {rfc} has a section twice");
        for section in &list.sections {
            let said: usize = section.rows.iter().map(|row| row.words).sum();
            assert_eq!(said + section.others, section.words, "RFC {rfc}, section {}", section.number);
        }
        assert_eq!(list.sections.iter().map(|section| section.words).sum::<usize>(), words, "RFC {rfc}");
        let rows: Vec<&Row> = list.sections.iter().flat_map(|section| &section.rows).collect();
        let tested = rows.iter().filter(|row| !row.tests.is_empty()).count();
        println!("RFC {rfc}: {} rows, {tested} with tests, {} with reasons", rows.len(), rows.len() - tested);
        assert!(rows.len() >= least, "RFC {rfc} has only {} rows", rows.len());
    }
}

#[test]
fn there_is_no_list_that_is_not_checked() {
    let files = fs::read_dir(folder()).expect("the lists are there");
    let names: BTreeSet<_> =
        files.map(|file| file.expect("it can be read").file_name().into_string().unwrap()).collect();
    let mut expected: BTreeSet<_> = LISTS.iter().map(|(rfc, ..)| format!("rfc{rfc}.md")).collect();
    expected.insert("README.md".to_owned());
    assert_eq!(names, expected);
}

#[test]
fn tests_are_found_by_their_full_names() {
    let known = tests_of_the_workspace();
    for name in [
        "rfc_checklist::tests_are_found_by_their_full_names",
        "hairpin_proto::framing::tests::a_message_is_complete_with_its_last_byte",
        "turn::invariants::nothing_is_forwarded_without_a_right_and_nothing_is_left_in_the_end",
        "codec::round_trip::integrity_covers_every_bit",
    ] {
        assert!(known.contains(name), "{name}");
    }
    assert!(!known.contains("rfc_checklist::read"), "what is no test is none");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rfc")
}

fn read(rfc: u16) -> List {
    let path = folder().join(format!("rfc{rfc}.md"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text, rfc)
}

fn parse(text: &str, rfc: u16) -> List {
    let mut list = List::default();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| -> ! { panic!("rfc{rfc}.md, line {}: {what}: {line}", at + 1) };
        if let Some(heading) = line.strip_prefix("## ") {
            list.sections.push(section(heading).unwrap_or_else(|| wrong("not a heading")));
        } else if let Some(entry) = line.strip_prefix("  - ") {
            let row = list.sections.last_mut().and_then(|section| section.rows.last_mut());
            let row = row.unwrap_or_else(|| wrong("there is no row yet"));
            if let Some(reason) = entry.strip_prefix("reason: ") {
                row.reason = Some(reason.to_owned());
            } else if let Some(test) = entry.strip_prefix('`').and_then(|test| test.strip_suffix('`')) {
                row.tests.push(test.to_owned());
            } else {
                wrong("neither a test nor a reason");
            }
        } else if let Some(entry) = line.strip_prefix("- ") {
            let row = row(entry, at + 1).unwrap_or_else(|| wrong("not a row"));
            let section = list.sections.last_mut().unwrap_or_else(|| wrong("there is no section yet"));
            section.rows.push(row);
        } else if let Some(rest) = line.strip_prefix("    ").or(line.strip_prefix("  ")) {
            let row = list.sections.last_mut().and_then(|section| section.rows.last_mut());
            let row = row.unwrap_or_else(|| wrong("there is no row yet"));
            let text = row.reason.as_mut().unwrap_or(&mut row.statement);
            text.push(' ');
            text.push_str(rest);
        } else if !list.sections.is_empty() && !line.is_empty() {
            wrong("neither a heading nor a row");
        }
    }
    list
}

/// `9.2.4: 27 key words, 5 for others`, or `18.6: 1 key word`.
fn section(heading: &str) -> Option<Section> {
    let (number, counts) = heading.split_once(": ")?;
    let mut counts = counts.split(", ");
    let words = counts.next()?;
    let words = words.strip_suffix(" key words").or(words.strip_suffix(" key word"))?;
    let others = counts.next().map_or(Some("0"), |others| others.strip_suffix(" for others"))?;
    let number = number.to_owned();
    Some(Section { number, words: words.parse().ok()?, others: others.parse().ok()?, rows: Vec::new() })
}

/// `MUST NOT x2: what the server does`.
fn row(entry: &str, line: usize) -> Option<Row> {
    let (level, statement) = entry.split_once(": ")?;
    let (level, words) = match level.rsplit_once(" x") {
        Some((level, words)) => (level, words.parse().ok()?),
        None => (level, 1),
    };
    let known = LEVELS.contains(&level) && words > 0;
    known.then(|| Row { line, level: level.to_owned(), words, statement: statement.to_owned(), ..Row::default() })
}

/// Every test of every crate, by the name that `cargo test` gives it with its crate's in front.
fn tests_of_the_workspace() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is one folder up");
    let mut found = BTreeSet::new();
    for package in packages(root) {
        let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("it was there");
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
        let library = name.trim_matches('"').replace('-', "_");
        for source in rust_files(&package.join("src")) {
            let module = module_of(&source, &package.join("src"));
            collect(&source, &join(&library, &module), &mut found);
        }
        for source in rust_files(&package.join("tests")) {
            // A package within this one's folder has its own.
            let module = module_of(&source, &package.join("tests"));
            collect(&source, &module, &mut found);
        }
    }
    found
}

/// Folders with a manifest that names a package; each may have others within.
fn packages(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a folder").flatten() {
        let path = entry.path();
        let skipped = ["target", "src", "fuzz", ".git"].iter().any(|name| path.ends_with(name));
        if path.is_dir() && !skipped {
            if path.join("Cargo.toml").is_file() {
                found.push(path.clone());
            }
            found.extend(packages(&path));
        }
    }
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The path of a file's module within its crate; of an integration test the crate's name comes first.
fn module_of(source: &Path, folder: &Path) -> String {
    let relative = source.strip_prefix(folder).expect("it is inside").with_extension("");
    let mut parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str())) {
        parts.pop();
    }
    parts.join("::")
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}::{name}"),
    }
}

/// Relies on rustfmt: a module ends with a brace as far to the right as it began.
fn collect(source: &Path, module: &str, found: &mut BTreeSet<String>) {
    let text = fs::read_to_string(source).expect("a source can be read");
    let mut modules: Vec<(usize, &str)> = Vec::new();
    let mut is_test = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim();
        if code == "}" && modules.last().is_some_and(|(at, _)| *at == indent) {
            modules.pop();
        } else if let Some(name) = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            modules.push((indent, name));
        } else if code == "#[test]" || code.starts_with("#[tokio::test") {
            is_test = true;
        } else if code.starts_with("#[ignore") {
            is_test = false;
        } else if let Some(name) = function(code).filter(|_| is_test) {
            is_test = false;
            let path = modules.iter().fold(module.to_owned(), |path, (_, name)| join(&path, name));
            found.insert(join(&path, name));
        }
    }
}

fn function(code: &str) -> Option<&str> {
    let rest = code.strip_prefix("async ").unwrap_or(code).strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}
