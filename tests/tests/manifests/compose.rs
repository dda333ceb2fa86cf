//! The Compose file: a relay, Prometheus and Grafana.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::call::Call;
use hairpin_tests::lab::process::{PATIENCE, run};
use hairpin_tests::lab::{Family, Folder, Lab, Prometheus, Relay, python, server};
use serde_json::Value;

use crate::image::{Container, Image, Runtime};
use crate::{judged, read, repository, seconds, toml, version};

const FILE: &str = "deploy/compose/compose.yaml";
const CONFIGURATION: &str = "deploy/compose/config/hairpin.toml";

/// The file as JSON, if what reads it is installed.
fn compose() -> Option<Value> {
    let printed = judged(python::from_pypi()?, "compose_valid.py", &repository(FILE)).expect_success();
    Some(serde_json::from_str(&printed).expect("it prints JSON"))
}

fn services() -> Option<Value> {
    compose().map(|compose| compose["services"].clone())
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn it_is_what_the_specification_says_and_a_mistake_is_found() {
    let Some(interpreter) = python::from_pypi() else { return };
    let text = read(FILE);
    let folder = Folder::new("compose");
    let file = folder.path().join("compose.yaml");
    for (good, bad, word) in [
        ("cap_add:", "cap_ad:", "cap_ad"),
        ("restart: unless-stopped", "restart: sometimes", "sometimes"),
        ("depends_on: [prometheus]", "depends_on: {prometheus: {condition: soon}}", "soon"),
    ] {
        let broken = text.replacen(good, bad, 1);
        assert_ne!(broken, text, "{good} is there");
        fs::write(&file, broken).expect("the folder is ours");
        let finished = judged(interpreter, "compose_valid.py", &file);
        assert_eq!(finished.code(), Some(1), "{good}: {finished}");
        assert!(finished.stderr.contains(word), "{finished}");
    }
    judged(interpreter, "compose_valid.py", &repository(FILE)).expect_success();
}

#[test]
fn all_that_it_mounts_and_builds_is_there() {
    let Some(compose) = compose() else { return };
    let services = &compose["services"];
    let folder = repository("deploy/compose");
    let mut mounted = 0;
    for (name, service) in services.as_object().expect("there are services") {
        for volume in texts(&service["volumes"]) {
            let (source, _) = volume.split_once(':').expect("a source and a target");
            if source.starts_with('.') {
                assert!(folder.join(source).exists(), "{name} mounts {source}");
                mounted += 1;
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name} mounts {source}");
            }
        }
        let (_, tag) = service["image"].as_str().and_then(|image| image.rsplit_once(':')).expect("it has a tag");
        assert!(tag.starts_with(|c: char| c == 'v' || c.is_ascii_digit()), "{name} is pinned to a version: {tag}");
    }
    assert_eq!(mounted, 4);
    let build = &services["hairpin"]["build"];
    let context = folder.join(build["context"].as_str().expect("it has a context"));
    assert!(context.join(build["dockerfile"].as_str().expect("it has a file")).exists());
    assert_eq!(services["hairpin"]["image"], format!("hairpin:{}", version()));
    let (grace, drain) = (&services["hairpin"]["stop_grace_period"], toml(&read(CONFIGURATION), "drain-timeout"));
    assert!(seconds(grace.as_str().expect("it says how long")) >= seconds(&drain) + 30);
}

#[test]
fn grafana_finds_prometheus_and_the_dashboard() {
    let Some(services) = services() else { return };
    let listens = texts(&services["prometheus"]["command"]);
    let address = listens.iter().find_map(|argument| argument.strip_prefix("--web.listen-address="));
    let source = read("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert!(source.contains(&format!("url: http://{}\n", address.expect("it says where it listens"))), "{source}");
    let provider = read("deploy/grafana/provisioning/dashboards/hairpin.yml");
    let path = provider.lines().find_map(|line| line.trim().strip_prefix("path: ")).expect("it has a path");
    let dashboard = format!("../grafana/hairpin.json:{path}/hairpin.json:ro");
    assert!(texts(&services["grafana"]["volumes"]).contains(&dashboard.as_str()), "{dashboard}");
    assert_eq!(
        services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"],
        format!("{path}/hairpin.json")
    );
}

#[test]
fn a_relay_runs_as_it_says_and_prometheus_scrapes_it() {
    let Some(services) = services() else { return };
    if !server::is_installed("prometheus") || !server::is_installed("setcap") {
        return;
    }
    let service = &services["hairpin"];
    let image = Image::read();
    assert_eq!(texts(&service["cap_drop"]), ["ALL"]);
    let grants: Vec<_> = texts(&service["cap_add"]).into_iter().map(str::to_owned).collect();
    assert_eq!(grants, image.grants());
    assert!(texts(&service["volumes"]).contains(&"./config:/etc/hairpin:ro"));
    assert_eq!(service["security_opt"], Value::Null, "Docker gives the process nothing but by its file");

    let lab = Lab::routed();
    let container = Container::new(&image);
    container.file("/etc/hairpin/hairpin.toml", read(CONFIGURATION).as_bytes(), 0o644, 0);
    let user = [("HAIRPIN_USER", "alice:in-a-lab"), ("HAIRPIN_XDP", "native")];
    let user = user.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let runtime = Runtime { grants: &grants, escalates: true, environment: &user };
    let relay = Relay::start_with(&lab.relay, &mut container.command(&lab.relay, &runtime, &["serve"]));
    // The check of the image's health.
    run(&mut container.command(&lab.relay, &runtime, &["status"])).expect_success();

    let call = Call::in_kernel(&lab, &relay, Family::V4);
    call.exchange(b"through a container");
    assert_eq!(relay.metrics().relayed("kernel"), 2);
    let prometheus = Prometheus::start(&lab.relay);
    let end = Instant::now() + PATIENCE;
    while prometheus.query("up{job=\"hairpin\"} == 1").is_empty() {
        assert!(Instant::now() < end, "{}", prometheus.ask("/api/v1/targets"));
        thread::sleep(Duration::from_millis(200));
    }
    // A drain waits for calls, and for the longest time that the configuration says.
    run(&mut container.command(&lab.relay, &runtime, &["allocations", "close", "--user", "alice"])).expect_success();
    relay.stop();
}
