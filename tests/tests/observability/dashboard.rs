//! The dashboard, as far as it can be judged without Grafana.

use std::collections::BTreeSet;
use std::process::Command;

use hairpin_tests::lab::process::run;
use serde_json::Value;

use crate::documents::{read, repository};

/// A query of the dashboard, and the panel that it belongs to.
pub(crate) struct Query {
    pub(crate) panel: String,
    pub(crate) expression: String,
}

/// All queries, with variables as Grafana would fill them in for all relays.
pub(crate) fn queries() -> Vec<Query> {
    let filled = |expression: &str| {
        expression.replace("$__rate_interval", "1m").replace("$__interval", "1m").replace("$instance", ".*")
    };
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = filled(target["expr"].as_str().expect("a target has an expression"));
            assert!(!expression.contains('$'), "an unknown variable in {expression}");
            queries.push(Query { panel: text(panel, "title").to_owned(), expression });
        }
    }
    queries
}

/// The dashboard.
fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/hairpin.json")).expect("the dashboard is JSON")
}

/// Its panels, without the titles of rows.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().expect("it has panels").iter().filter(|panel| panel["type"] != "row")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn it_is_what_its_generator_makes() {
    let made = run(Command::new("python3").arg(repository().join("deploy/grafana/generate.py"))).expect_success();
    let is = read("deploy/grafana/hairpin.json");
    assert!(made == is, "run deploy/grafana/generate.py > deploy/grafana/hairpin.json");
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_asks_for_the_chosen_relays() {
    let dashboard = dashboard();
    let mut places = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(!title.is_empty() && text(panel, "description").ends_with('.'), "{panel}");
        assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title} has a unit");
        let targets = panel["targets"].as_array().expect("it asks for something");
        assert!(!targets.is_empty(), "{title}");
        for asks in targets.iter().chain([panel]) {
            assert_eq!(asks["datasource"]["uid"], "${datasource}", "{title}");
        }
        for target in targets {
            assert!(text(target, "expr").contains("instance=~\"$instance\""), "{title}: {target}");
        }
        let place = &panel["gridPos"];
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().expect("it has a place"));
        assert!(x + width <= 24, "{title} is not beside the screen");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(places.insert(cell), "{title} lies over another panel");
        }
    }
    let variables: Vec<_> =
        dashboard["templating"]["list"].as_array().into_iter().flatten().map(|v| text(v, "name")).collect();
    assert_eq!(variables, ["datasource", "instance"]);
}
