//! Options that are shown exist: in commands that are not run, and in prose.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::markdown::{pages, repository};

use crate::commands::is_of_the_manual;

#[test]
fn options_in_prose_exist() {
    let mut known = options_of_scripts();
    for command in commands(&[]) {
        known.extend(help(&[&command]).expect("it is a command"));
        for inner in commands(&[&command]) {
            known.extend(help(&[&command, &inner]).expect("it is a command"));
        }
    }
    assert!(known.len() > 100, "only {} options were found", known.len());
    let mut complaints = Vec::new();
    for page in pages().iter().filter(|page| is_of_the_manual(&page.path)) {
        for span in &page.spans {
            let wrong = match span.text.split_once(' ').map_or(span.text.as_str(), |(first, _)| first) {
                "hairpin" => misused(&words(&span.text)[1..]),
                first if first.starts_with("--") => {
                    let unknown = options(&span.text).into_iter().find(|option| !known.contains(option));
                    unknown.map(|option| format!("there is no option {option}"))
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                complaints.push(format!("{}:{}: `{}`: {wrong}", page.path.display(), span.line, span.text));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_made_up_option_is_told() {
    let wrong = |line: &str| misused(&words(line)[1..]).is_some();
    assert!(wrong("hairpin serve --mobile") && wrong("hairpin serves") && wrong("hairpin ice list --ids"));
    assert!(!wrong("hairpin serve --mobility --listen=udp:[::]:3478") && !wrong("hairpin ice list --json"));
    assert!(!wrong("hairpin --version") && !wrong("hairpin COMMAND --help") && !wrong("hairpin"));
    let script = "sudo hairpin why --days 3 # hairpin nothing\nls |\n  hairpin status; A=1 hairpin drain \\\n --wait";
    assert_eq!(misused_in(script).len(), 1, "{:?}", misused_in(script));
}

/// What is wrong with the commands of hairpin in a script.
pub(crate) fn misused_in(script: &str) -> Vec<String> {
    let script = script.replace("\\\n", " ");
    let lines = script.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let commands = lines.flat_map(|line| line.split(['|', ';', '&']));
    let words = commands.map(words).map(|words| {
        let is_before =
            |word: &String| word == "sudo" || word.split_once('=').is_some_and(|(name, _)| is_variable(name));
        words.into_iter().skip_while(is_before).collect::<Vec<_>>()
    });
    words
        .filter(|words| words.first().is_some_and(|first| first == "hairpin"))
        .filter_map(|words| misused(&words[1..]))
        .collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// What is wrong with what stands behind `hairpin`. A word in capitals stands for any.
fn misused(words: &[String]) -> Option<String> {
    let is_option = |word: &&str| word.starts_with('-') || word.chars().all(|c| c.is_ascii_uppercase() || c == '-');
    let path: Vec<&str> = words.iter().map(String::as_str).take_while(|word| !is_option(word)).take(2).collect();
    let Some(known) = help(&path) else { return Some(format!("there is no `hairpin {}`", path.join(" "))) };
    let unknown = words.iter().flat_map(|word| options(word)).find(|option| !known.contains(option));
    unknown.map(|option| format!("`hairpin {}` has no option {option}", path.join(" ")))
}

/// The options that `--help` tells of, if there is such a command. Asked once for each.
fn help(path: &[&str]) -> Option<BTreeSet<String>> {
    static KNOWN: OnceLock<Mutex<BTreeMap<String, Option<BTreeSet<String>>>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().expect("no holder panics");
    let entry = known.entry(path.join(" ")).or_insert_with(|| {
        let finished = run(Command::new(binary()).args(path).arg("--help"));
        let mut options = options(&finished.stdout);
        options.extend(["--help".to_owned(), "--version".to_owned()]);
        (finished.code() == Some(0)).then_some(options)
    });
    entry.clone()
}

/// The commands within a command: each is at the beginning of a line of its help.
fn commands(path: &[&str]) -> Vec<String> {
    let text = run(Command::new(binary()).args(path).arg("--help")).expect_success();
    let firsts = text.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = firsts.filter(|first| first.starts_with(|c: char| c.is_ascii_lowercase()));
    names.filter(|name| help(&[path, &[name]].concat()).is_some()).map(str::to_owned).collect()
}

/// Those of the scripts that pages tell of.
fn options_of_scripts() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for script in ["tests/bench.sh", "tests/lab.sh", "deploy/setup.sh", "deploy/examples/sip/proxy.py"] {
        found.extend(options(&fs::read_to_string(repository().join(script)).expect("a script of ours")));
    }
    found
}

/// All long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_option =
        |word: &&str| word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    words.filter(is_option).map(str::to_owned).collect()
}
