//! Every command that the manual shows is run.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hairpin_tests::lab::process::run;
use hairpin_tests::lab::server::is_installed;
use hairpin_tests::markdown::{Block, Page, pages};

use crate::options::misused_in;
use crate::world::{Place, World};

/// Why a command may be shown that is not run.
const REASONS: [&str; 11] = [
    "builds the release",
    "changes the whole machine",
    "installs packages",
    "needs a cluster",
    "needs a container engine",
    "needs a database server",
    "needs a lab",
    "needs several hosts",
    "needs systemd",
    "needs the Internet",
    "takes minutes",
];
/// What a block may be that is no command.
const OTHER: [&str; 11] = ["text", "toml", "json", "python", "sql", "yaml", "ini", "c", "dns-zone", "nginx", "rust"];
/// How many pages are run at once: they wait more than they work.
const AT_ONCE: usize = 3;

/// What commands of the manual use, beside what the lab does.
const PROGRAMS: [&str; 6] = ["awk", "curl", "jq", "openssl", "python3", "sqlite3"];

/// What is to be done with a block.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    Run(Place),
    Relay,
    Background,
    NotRun,
    Output,
    ExactOutput,
    File(&'a str),
    Shown,
}

/// Whether a page is of the manual. Others are for those who work on the code.
pub(crate) fn is_of_the_manual(path: &Path) -> bool {
    path == Path::new("README.md")
        || path.starts_with("docs")
        || (path.starts_with("deploy") && path.file_name().is_some_and(|name| name == "README.md"))
}

/// `HAIRPIN_PAGE=docs/install.md` runs those of one page.
#[test]
fn every_command_that_the_manual_shows_is_run() {
    if !PROGRAMS.iter().all(|program| is_installed(program)) {
        return;
    }
    let only = std::env::var("HAIRPIN_PAGE").ok();
    let is_chosen = |page: &Page| only.as_deref().is_none_or(|only| Path::new(only) == page.path);
    let pages: Vec<_> = pages().into_iter().filter(|page| is_of_the_manual(&page.path) && is_chosen(page)).collect();
    assert!(!pages.is_empty(), "there is no page {only:?}");
    let complaints = Mutex::new(Vec::new());
    let (next, commands) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (run, wrong) = run_page(page);
                    println!("{}: {run} blocks run", page.path.display());
                    commands.fetch_add(run, Ordering::Relaxed);
                    complaints.lock().expect("no holder panics").extend(wrong);
                }
            });
        }
    });
    let complaints = complaints.into_inner().expect("no holder panics");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let run = commands.into_inner();
    assert!(only.is_some() || run >= 50, "only {run} blocks were run: the manual shows more");
}

#[test]
fn a_block_is_what_its_fence_says() {
    assert_eq!(kind("sh"), Ok(Kind::Run(Place::Relay)));
    assert_eq!(kind("sh client"), Ok(Kind::Run(Place::Client)));
    assert_eq!(kind("sh no_run: needs systemd"), Ok(Kind::NotRun));
    assert_eq!(kind("text output"), Ok(Kind::Output));
    assert_eq!(kind("toml /etc/hairpin/hairpin.toml"), Ok(Kind::File("/etc/hairpin/hairpin.toml")));
    for wrong in ["", "bash", "shell", "console", "sh later", "sh no_run", "sh no_run: is too hard"] {
        assert!(kind(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn output_that_differs_is_told() {
    let printed = "2 allocations\n  alice   1.5 Mbit/s\npassword: 5mZbY4tTnYVq9uOe2Xy1Hk0oCjA=\nend\n";
    assert_eq!(missing("17 allocations\nalice 20 Mbit/s\n...\nend", printed), None);
    assert_eq!(missing("password: AAAAAAAAAAAAAAAAAAAAAAAAAAA=", printed), None);
    assert_eq!(missing("end\n2 allocations", printed), Some("2 allocations".to_owned()));
    assert_eq!(missing("2 sessions", printed), Some("2 sessions".to_owned()));
    assert_eq!(missing("1 allo...\nend", printed), None);
    assert_eq!(missing("1 sess...", printed), Some("1 sess...".to_owned()));
}

fn kind(info: &str) -> Result<Kind<'_>, String> {
    let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
    match (language, rest.trim()) {
        ("sh", "") => Ok(Kind::Run(Place::Relay)),
        ("sh", "client") => Ok(Kind::Run(Place::Client)),
        ("sh", "relay") => Ok(Kind::Relay),
        ("sh", "background") => Ok(Kind::Background),
        ("sh", words) => match words.strip_prefix("no_run: ") {
            Some(reason) if REASONS.contains(&reason) => Ok(Kind::NotRun),
            _ => Err(format!("`sh {words}` is none of what main.rs lists; reasons for no_run: {}", REASONS.join(", "))),
        },
        ("text", "output") => Ok(Kind::Output),
        ("text", "exactly") => Ok(Kind::ExactOutput),
        (other, _) if !OTHER.contains(&other) => {
            Err(format!("a block of `{other}`: commands are `sh`, other blocks one of {}", OTHER.join(", ")))
        }
        (_, "") => Ok(Kind::Shown),
        (_, file) => Ok(Kind::File(file)),
    }
}

/// Runs the commands of a page; how many blocks were run, and what is wrong.
fn run_page(page: &Page) -> (usize, Vec<String>) {
    let mut complaints = Vec::new();
    let place = |line: usize| format!("{}:{line}", page.path.display());
    for line in &page.indented {
        complaints.push(format!("{}: code needs fences that say what it is", place(*line)));
    }
    let mut blocks = Vec::new();
    for block in &page.blocks {
        match kind(&block.info) {
            Ok(kind) => blocks.push((block, kind)),
            Err(wrong) => complaints.push(format!("{}: {wrong}", place(block.line))),
        }
    }
    let is_run = |kind: &Kind| matches!(kind, Kind::Run(_) | Kind::Relay | Kind::Background);
    let run = blocks.iter().filter(|(_, kind)| is_run(kind)).count();
    let mut world = (run > 0).then(World::new);
    if let Some(world) = &mut world {
        complaints.extend(world.serve("hairpin serve").err());
    }
    let mut output = String::new();
    for (block, kind) in &blocks {
        let wrong = match (kind, &mut world) {
            (Kind::NotRun, _) => unfit(block),
            (Kind::Output, _) => missing(&block.text, &output).map(|line| format!("`{line}` is not in:\n{output}")),
            (Kind::ExactOutput, _) => (block.text != output).then(|| format!("what is printed is:\n{output}")),
            (Kind::Shown, _) if block.info == "json" => {
                serde_json::from_str::<serde_json::Value>(&block.text).err().map(|error| error.to_string())
            }
            (Kind::Shown, _) | (_, None) => None,
            (kind, Some(world)) => perform(block, kind, world, &mut output).err(),
        };
        complaints.extend(wrong.map(|wrong| format!("{}: {wrong}", place(block.line))));
    }
    if let Some(world) = &mut world {
        complaints
            .extend(world.ended().into_iter().chain(world.stop_relay().err()).map(|it| format!("{}: {it}", place(0))));
    }
    (run, complaints)
}

/// Does what a block says, and keeps what it prints.
fn perform(block: &Block, kind: &Kind, world: &mut World, output: &mut String) -> Result<(), String> {
    match kind {
        Kind::Run(place) => {
            let finished = world.run(*place, &block.text);
            *output = format!("{}{}", finished.stdout, finished.stderr);
            println!("{}\n{output}", block.text);
            if finished.code() == Some(0) { Ok(()) } else { Err(finished.to_string()) }
        }
        Kind::Relay => world.serve(&block.text),
        Kind::Background => world.start(&block.text),
        Kind::File(file) => {
            let script = format!(
                "umask 077\nmkdir -p \"$(dirname {file})\"\ncat > {file} <<'END OF FILE'\n{}END OF FILE",
                block.text
            );
            world.run(Place::Relay, &script).expect_success();
            Ok(())
        }
        Kind::NotRun | Kind::Output | Kind::ExactOutput | Kind::Shown => Ok(()),
    }
}

/// What is wrong with a command that is not run.
fn unfit(block: &Block) -> Option<String> {
    let syntax = run(Command::new("bash").args(["-n", "-c", &block.text]));
    if syntax.code() != Some(0) {
        return Some(syntax.to_string());
    }
    let misused = misused_in(&block.text);
    (!misused.is_empty()).then(|| misused.join("; "))
}

/// The first line that was to be printed and was not, in the order of the lines.
fn missing(expected: &str, printed: &str) -> Option<String> {
    let mut printed = printed.lines().map(loose);
    let mut lines = expected.lines().filter(|line| !line.trim().is_empty());
    let mut is_there = |line: &&str| match line.strip_suffix("...").map(loose) {
        // Alone it stands for any lines, and there need not be one.
        Some(beginning) => beginning.is_empty() || printed.any(|it| it.starts_with(&beginning)),
        None => printed.any(|it| it == loose(line)),
    };
    lines.find(|line| !is_there(line)).map(str::to_owned)
}

/// A line without what may differ from run to run: numbers, random words, spaces.
fn loose(line: &str) -> String {
    let word = |word: &str| {
        let is_random = word.len() >= 20 && word.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
        if is_random { "R".to_owned() } else { without_digits(word) }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn without_digits(word: &str) -> String {
    let mut out = String::new();
    let mut is_number = false;
    for c in word.chars() {
        if c.is_ascii_digit() || (is_number && (c == '.' || c == ',')) {
            is_number = true;
        } else {
            if std::mem::take(&mut is_number) {
                out.push('0');
            }
            out.push(c);
        }
    }
    if is_number {
        out.push('0');
    }
    out
}
