//! The rules for Prometheus, as promtool judges them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use hairpin::metrics::{Family, Kind};
use hairpin_tests::lab::Folder;
use hairpin_tests::lab::process::{Finished, run};
use hairpin_tests::lab::prometheus::rules;

use crate::documents::read;

const ALERTS: &str = "deploy/prometheus/hairpin.alerts.yml";
const RECORDING: &str = "deploy/prometheus/hairpin.recording.yml";

/// An alert of the rules.
pub(crate) struct Alert {
    pub(crate) name: String,
    /// All its lines.
    text: String,
}

impl Alert {
    /// What stands behind a key, without quotes.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let line = self.text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "))?;
        Some(line.trim_matches('"'))
    }

    /// The same alert with an expression that is never true.
    fn never(&self) -> String {
        let (head, rest) = self.text.split_once("expr: ").expect("an alert has an expression");
        // It may have several lines, which are further to the right than the next key.
        let next = ["        for: ", "        labels:"].into_iter().filter_map(|key| rest.find(key)).min();
        format!("{head}expr: vector(1) == 2\n{}", &rest[next.expect("an alert has labels")..])
    }
}

/// All alerts, in their order.
pub(crate) fn alerts() -> Vec<Alert> {
    let text = read(ALERTS);
    let parts = text.split("      - alert: ").skip(1);
    let alerts: Vec<_> = parts
        .map(|part| {
            // The next group is no part of it.
            let part = part.split("\n\n").next().unwrap_or(part);
            let name = part.lines().next().expect("an alert has a name").to_owned();
            Alert { name, text: format!("      - alert: {part}\n") }
        })
        .collect();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    alerts
}

fn promtool(arguments: &[&str]) -> Finished {
    run(Command::new("promtool").args(arguments).current_dir(rules()))
}

#[test]
fn promtool_takes_the_example_and_all_rules() {
    promtool(&["check", "config", "prometheus.yml"]).expect_success();
    promtool(&["check", "rules", "hairpin.recording.yml", "hairpin.alerts.yml"]).expect_success();
}

#[test]
fn the_unit_tests_of_the_rules_pass() {
    promtool(&["test", "rules", "tests/recording.yml", "tests/alerts.yml"]).expect_success();
}

#[test]
fn every_recording_rule_has_a_test() {
    let (text, tests) = (read(RECORDING), read("deploy/prometheus/tests/recording.yml"));
    let records: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    assert!(records.len() >= 10, "{records:?}");
    for record in records {
        let is_asked = tests.lines().any(|line| line.trim().starts_with("- expr: ") && line.contains(record));
        assert!(is_asked, "{record} has no test");
    }
}

#[test]
fn every_alert_has_a_test_in_which_one_relay_is_ill_and_another_is_not() {
    let tests = read("deploy/prometheus/tests/alerts.yml");
    for Alert { name, .. } in alerts() {
        let test = tests.split("  - name: ").find(|test| test.starts_with(&format!("{name}\n")));
        let test = test.unwrap_or_else(|| panic!("{name} has no test"));
        for part in [
            "instance=\"well\"}",
            "exp_samples: []",
            &format!("{{labels: '{{alertname=\"{name}\", instance=\"ill\"}}', value: 1}}"),
        ] {
            let has = test.contains(part) || part.starts_with("instance") && test.contains("instance=\"well\", ");
            assert!(has, "the test of {name} lacks {part}");
        }
    }
}

#[test]
fn an_alert_that_never_fires_fails_its_test() {
    let folder = Folder::new("alerts");
    let text = read(ALERTS);
    fs::create_dir(folder.path().join("tests")).expect("the folder is ours");
    fs::copy(rules().join("tests/alerts.yml"), folder.path().join("tests/alerts.yml")).expect("it is there");
    fs::copy(rules().join("hairpin.recording.yml"), folder.path().join("hairpin.recording.yml")).expect("it is there");
    // All at once: promtool names each that is missed.
    let mut broken = text;
    for alert in alerts() {
        let is = alert.text.trim_end();
        assert!(broken.contains(is), "{} was cut out as a whole", alert.name);
        broken = broken.replace(is, alert.never().trim_end());
    }
    fs::write(folder.path().join("hairpin.alerts.yml"), broken).expect("the folder is ours");
    let finished = run(Command::new("promtool").args(["test", "rules", "tests/alerts.yml"]).current_dir(folder.path()));
    assert_eq!(finished.code(), Some(1), "{finished}");
    for Alert { name, .. } in alerts() {
        let said = format!("exp: {{alertname=\"{name}\"");
        assert!(format!("{}{}", finished.stdout, finished.stderr).contains(&said), "nobody misses {name}: {finished}");
    }
}

#[test]
fn rules_and_dashboard_use_metrics_that_there_are() {
    let recorded: BTreeSet<_> =
        read(RECORDING).lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned).collect();
    let exposed: BTreeSet<_> = Family::ALL.iter().flat_map(|family| samples(*family)).collect();
    for file in [RECORDING, ALERTS, "deploy/grafana/hairpin.json"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
        let is_metric = |word: &&str| {
            let name = word.rsplit_once(':').map_or(*word, |(_, name)| name);
            let is_recorded = word.starts_with("instance") && word.contains(":hairpin_");
            is_recorded || name == *word && (name.starts_with("hairpin_") || name.starts_with("process_"))
        };
        let used: BTreeSet<_> = words.filter(is_metric).collect();
        assert!(used.len() >= 15, "{file}: {used:?}");
        // Groups of rules have names, too.
        for name in used.into_iter().filter(|name| !text.contains(&format!("- name: {name}\n"))) {
            assert!(exposed.contains(name) || recorded.contains(name), "{file} uses {name}");
        }
    }
    let dashboard = read("deploy/grafana/hairpin.json");
    for family in Family::ALL {
        let is_shown = samples(*family).iter().any(|sample| dashboard.contains(sample.as_str()))
            || family.name().starts_with("process_start")
            || read(RECORDING).contains(family.name());
        assert!(is_shown, "the dashboard does not show {}", family.name());
    }
}

#[test]
fn what_rules_and_dashboard_look_for_are_values_that_labels_can_have() {
    let page = read("docs/metrics.md");
    for file in [RECORDING, ALERTS, "deploy/grafana/hairpin.json"] {
        let text = read(file).replace("\\\"", "\"");
        for label in ["cause", "reason", "mode", "path", "transport", "direction", "result"] {
            for operator in ["=~", "!~", "!=", "="] {
                let matcher = format!("{label}{operator}\"");
                let found = text.split(&matcher).skip(1);
                for value in found.filter_map(|rest| rest.split('"').next()).flat_map(|values| values.split('|')) {
                    assert!(page.contains(&format!("`{value}`")), "{file} looks for {label}=\"{value}\"");
                }
            }
        }
    }
}

/// The names of a family's samples.
fn samples(family: Family) -> Vec<String> {
    let parts: &[&str] = if family.kind() == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
    parts.iter().map(|part| format!("{}{part}", family.name())).collect()
}
