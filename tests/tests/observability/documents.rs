//! The pages about metrics and alerts say what there is, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hairpin::metrics::Family;
use hairpin_proto::turn::{Cause, EndReason};
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::{binary, every_transport};
use hairpin_tests::lab::{Authority, Family as Ip, Folder, Key, Lab, Metrics, Relay};

use crate::rules::alerts;

/// The URL of a user store that is there, and that nobody is in.
pub(crate) fn empty_store(folder: &Folder) -> String {
    let path = folder.path().join("users.db");
    fs::write(&path, "").expect("the folder is ours");
    format!("sqlite://{}", path.display())
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

/// A row of the page's tables of metrics.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: String,
    labels: Vec<String>,
    meaning: String,
}

/// What the page about metrics lists.
fn listed() -> BTreeMap<String, Row> {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| ")?.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, meaning, _] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let labels =
            labels.split(", ").map(|label| label.trim_matches('`').to_owned()).filter(|label| !label.is_empty());
        let row = Row { kind: kind.to_owned(), labels: labels.collect(), meaning: meaning.to_owned() };
        Some((name.to_owned(), row))
    });
    rows.collect()
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let described = Family::ALL.iter().map(|family| {
        let labels = family.labels().iter().map(|label| (*label).to_owned()).collect();
        let row = Row { kind: family.kind().label().to_owned(), labels, meaning: family.help().to_owned() };
        (family.name().to_owned(), row)
    });
    let described: BTreeMap<_, _> = described.collect();
    let listed = listed();
    for (name, row) in &described {
        assert_eq!(Some(row), listed.get(name), "{name}: the code, and docs/metrics.md");
    }
    let unknown: Vec<_> = listed.keys().filter(|name| !described.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "docs/metrics.md lists what there is not: {unknown:?}");
}

#[test]
fn a_real_scrape_has_every_metric_of_the_table_and_no_other() {
    let lab = Lab::routed();
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &Ip::ALL.map(Lab::relay_ip));
    let options = every_transport(&certificate);
    // Nobody is in it, and nobody asks for users that only it knows.
    let folder = Folder::new("metrics");
    let store = &empty_store(&folder);
    let fixed = ["--xdp", "native", "--user-store", store];
    let options: Vec<&str> = fixed.into_iter().chain(options.iter().map(String::as_str)).collect();
    let relay = Relay::start(&lab.relay, &options);
    let (_, text) = relay.get("/metrics").expect("the admin interface answers");
    let metrics = Metrics::parse(&text);
    let listed = listed();
    let page = read("docs/metrics.md");

    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let typed: BTreeMap<_, _> = typed.collect();
    let unlisted: Vec<_> = typed.keys().filter(|name| !listed.contains_key(**name)).collect();
    assert!(unlisted.is_empty(), "docs/metrics.md lacks {unlisted:?}");
    for (name, row) in &listed {
        assert_eq!(
            typed.get(name.as_str()),
            Some(&row.kind.as_str()),
            "the type of {name}, of the scrape and of the page"
        );
        assert!(text.contains(&format!("# HELP {name} {}\n", row.meaning)), "{name} is explained as in the page");
        let parts: &[&str] = if row.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for part in parts {
            let sample = format!("{name}{part}");
            let expected: BTreeSet<_> =
                row.labels.iter().map(String::as_str).chain((*part == "_bucket").then_some("le")).collect();
            assert!(metrics.of(&sample, &[]).next().is_some(), "{sample} is in the scrape");
            for sample in metrics.of(&sample, &[]) {
                let labels: BTreeSet<_> = sample.labels.keys().map(String::as_str).collect();
                assert_eq!(labels, expected, "the labels of {name}, of the scrape and of the page");
            }
        }
    }
    // What this host and its configuration, or numbers, are the values of.
    let open = ["shard", "address", "interface", "file", "version", "code", "le", "realm", "store"];
    for sample in &metrics.samples {
        for (label, value) in
            sample.labels.iter().filter(|(label, value)| !open.contains(&label.as_str()) && !value.is_empty())
        {
            assert!(
                page.contains(&format!("`{value}`")),
                "docs/metrics.md explains {label}=\"{value}\" of {}",
                sample.name
            );
        }
    }
    relay.stop();
}

#[test]
fn causes_and_reasons_are_explained_as_the_code_does() {
    let page = read("docs/metrics.md");
    let codes = read("docs/faq.md");
    for cause in Cause::ALL {
        let row = format!("| `{}` | {} |", cause.label(), cause.explanation());
        assert!(page.contains(&row), "docs/metrics.md lacks:\n{row}");
        assert!(codes.contains(&format!("`{}`", cause.label())), "docs/faq.md has no code for {}", cause.label());
    }
    for reason in EndReason::ALL {
        assert!(page.contains(&format!("| `{}` | ", reason.label())), "docs/metrics.md lacks {}", reason.label());
    }
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let page = read("docs/alerts.md");
    let runbook = read("docs/operate.md");
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts = alerts();
    assert_eq!(alerts.iter().map(|alert| alert.name.as_str()).collect::<Vec<_>>(), sections, "in the same order");
    for alert in &alerts {
        let (_, section) = page.split_once(&format!("### {}\n", alert.name)).expect("it was just found");
        let severity = alert.value("severity").expect("an alert has a severity");
        assert!(["critical", "warning"].contains(&severity), "{}: {severity}", alert.name);
        assert!(
            section.trim_start().starts_with(&format!("*{severity}.*")),
            "{} is {severity} in docs/alerts.md",
            alert.name
        );
        let anchor = format!("/docs/alerts.md#{}", alert.name.to_lowercase());
        assert!(
            alert.value("runbook_url").is_some_and(|url| url.ends_with(&anchor)),
            "{} leads to its section",
            alert.name
        );
        assert!(runbook.contains(&anchor["/docs/".len()..]), "docs/operate.md says what {} is seen by", alert.name);
        let (summary, description) = (alert.value("summary"), alert.value("description"));
        assert!(summary.is_some_and(|text| text.contains("{{ $labels.instance }}")), "{}: {summary:?}", alert.name);
        assert!(description.is_some_and(|text| text.ends_with('.')), "{}: {description:?}", alert.name);
    }
}

#[test]
fn every_alert_that_the_table_of_metrics_names_is_there() {
    let page = read("docs/metrics.md");
    let alerts = alerts();
    for named in page.split('`').filter(|span| span.starts_with("Hairpin")) {
        assert!(alerts.iter().any(|alert| alert.name == named), "docs/metrics.md names {named}");
    }
    for alert in &alerts {
        assert!(
            page.contains(&format!("`{}`", alert.name)),
            "docs/metrics.md says which metric {} is about",
            alert.name
        );
    }
}

#[test]
fn every_option_that_operators_are_told_of_exists() {
    let help = ["serve", "status", "drain", "allocations", "users", "why", "reload", "check"]
        .map(|command| run(Command::new(binary()).args([command, "--help"])).expect_success());
    let known: BTreeSet<_> = help.iter().flat_map(|help| options(help)).collect();
    // The pages of the manual have a test of their own.
    for page in ["deploy/prometheus/hairpin.alerts.yml", "deploy/prometheus/prometheus.yml"] {
        for option in options(&read(page)) {
            assert!(known.contains(&option), "{page} names {option}");
        }
    }
}

/// All long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_option =
        |word: &&str| word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    words.filter(is_option).map(str::to_owned).collect()
}
