//! The manifests for Kubernetes, as kubectl renders them, and a relay in a pod as they describe it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::http::{self, ask};
use hairpin_tests::lab::process::{Finished, PATIENCE, Process, run};
use hairpin_tests::lab::relay::{PORT, binary};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Call, Family, Folder, Lab, python, server};
use rustix::process::Signal;
use serde_json::Value;

use crate::image::{Container, Image, Runtime};
use crate::{is_option, judged, read, repository, seconds, toml, version};

const OVERLAYS: [&str; 2] = ["single", "fleet"];
const CONFIGURATION: &str = "deploy/kubernetes/base/hairpin.toml";

/// A copy of the folder, with secrets of its own.
struct Manifests(Folder);

impl Manifests {
    fn copy() -> Self {
        let folder = Folder::new("kubernetes");
        run(Command::new("cp").arg("-r").arg(repository("deploy/kubernetes")).arg(folder.path())).expect_success();
        let copy = Self(folder);
        for overlay in OVERLAYS {
            let _ = fs::remove_dir_all(copy.path(&format!("overlays/{overlay}/secrets")));
            let mut command = Command::new(copy.path("secrets.sh"));
            command.arg(copy.path(&format!("overlays/{overlay}")));
            run(command.args((overlay == "fleet").then_some("redis://:secret@redis.example.org:6379/0")))
                .expect_success();
        }
        copy
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("kubernetes").join(path)
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).expect("it is there");
        assert!(text.contains(from), "{file} has {from}");
        fs::write(self.path(file), text.replace(from, to)).expect("the folder is ours");
    }

    fn monitored(self, overlay: &str) -> Self {
        let file = format!("overlays/{overlay}/kustomization.yaml");
        let text = fs::read_to_string(self.path(&file)).expect("it is there");
        let line = "components:\n  - ../../components/monitoring\n";
        let text =
            if text.contains("components:\n") { text.replace("components:\n", line) } else { format!("{text}{line}") };
        fs::write(self.path(&file), text).expect("the folder is ours");
        self
    }

    /// What kubectl makes of an overlay, and the schemas say to it.
    fn rendered(&self, overlay: &str) -> Option<Finished> {
        Some(judged(python::from_pypi()?, "kubernetes_valid.py", &self.path(&format!("overlays/{overlay}"))))
    }

    fn objects(&self, overlay: &str) -> Option<Objects> {
        let printed = self.rendered(overlay)?.expect_success();
        Some(Objects(serde_json::from_str(&printed).expect("it prints JSON")))
    }
}

/// The objects of an overlay.
struct Objects(Vec<Value>);

impl Objects {
    fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|object| text(&object["kind"])).collect()
    }

    fn one(&self, kind: &str) -> &Value {
        let mut found = self.0.iter().filter(|object| object["kind"] == kind);
        let (Some(object), None) = (found.next(), found.next()) else { panic!("one {kind} in {:?}", self.kinds()) };
        object
    }

    /// The pod's template.
    fn pod(&self) -> &Value {
        &self.one("DaemonSet")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    fn volume(&self, name: &str) -> &Value {
        let volumes = self.pod()["volumes"].as_array().expect("it has volumes");
        volumes.iter().find(|volume| volume["name"] == name).expect("there is such a volume")
    }

    fn mount(&self, volume: &str) -> &str {
        let mounts = self.container()["volumeMounts"].as_array().expect("volumes are mounted");
        text(&mounts.iter().find(|mount| mount["name"] == volume).expect("this volume is mounted")["mountPath"])
    }

    /// The environment as the kubelet makes it: `$(NAME)` is what was defined before, or stays as it is.
    fn environment(&self, node: IpAddr) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = Vec::new();
        for variable in self.container()["env"].as_array().expect("it has an environment") {
            let mut value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
                Value::String(path) if path == "status.hostIP" => node.to_string(),
                Value::Null => text(&variable["value"]).to_owned(),
                other => panic!("nobody knows what {other} is"),
            };
            for (name, known) in &environment {
                value = value.replace(&format!("$({name})"), known);
            }
            environment.push((text(&variable["name"]).to_owned(), value));
        }
        environment
    }

    /// Where the kubelet asks for a probe.
    fn probe(&self, probe: &str, node: IpAddr) -> (SocketAddr, &str) {
        let get = &self.container()[probe]["httpGet"];
        let host = get["host"].as_str().map_or(node, |host| host.parse().expect("an address"));
        let ports = self.container()["ports"].as_array().expect("it has ports");
        let port = ports.iter().find(|port| port["name"] == get["port"]).expect("the probe's port has a name");
        let port = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        (SocketAddr::new(host, port), text(&get["path"]))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn the_api_takes_every_overlay() {
    for overlay in OVERLAYS {
        let Some(objects) = Manifests::copy().objects(overlay) else { return };
        let mut kinds = vec!["Namespace", "ServiceAccount", "ConfigMap", "Secret", "DaemonSet"];
        kinds.extend((overlay == "fleet").then_some("Service"));
        let mut is = objects.kinds();
        is.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(is, kinds, "{overlay}");
        let monitored = Manifests::copy().monitored(overlay).objects(overlay).expect("it was installed");
        assert_eq!(monitored.0.len(), objects.0.len() + 1, "{overlay}");
        let monitor = monitored.one("PodMonitor");
        assert_eq!(monitor["spec"]["selector"], monitored.one("DaemonSet")["spec"]["selector"]);
        for object in monitored.0.iter().filter(|object| object["kind"] != "Namespace") {
            assert_eq!(object["metadata"]["namespace"], "hairpin", "{object}");
        }
    }
}

#[test]
fn what_the_api_does_not_take_is_found() {
    for (file, from, to, word) in [
        ("base/daemonset.yaml", "hostNetwork:", "hostNetwrok:", "hostNetwrok"),
        ("base/daemonset.yaml", "periodSeconds: 10", "periodSeconds: soon", "soon"),
        ("base/kustomization.yaml", "  - hairpin.toml", "  - hairpin.tmol", "hairpin.tmol"),
        ("components/monitoring/pod-monitor.yaml", "jobLabel:", "joblabel:", "joblabel"),
        ("components/fleet/daemonset.yaml", "maxUnavailable", "maxUnavailabel", "maxUnavailabel"),
    ] {
        let manifests = Manifests::copy().monitored("fleet");
        manifests.change(file, from, to);
        let Some(finished) = manifests.rendered("fleet") else { return };
        assert_eq!(finished.code(), Some(1), "{from} was {to}: {finished}");
        assert!(finished.stderr.contains(word), "{finished}");
    }
}

#[test]
fn no_secret_is_shipped_and_none_is_made_twice() {
    assert!(read(".gitignore").lines().any(|line| line == "deploy/kubernetes/overlays/*/secrets"));
    let manifests = Manifests::copy();
    let secret = |overlay: &str| {
        let file = format!("overlays/{overlay}/secrets/auth-secrets");
        fs::read_to_string(manifests.path(&file)).expect("the script has made it")
    };
    assert_ne!(secret("single"), secret("fleet"));
    assert!(secret("single").trim().len() >= 43, "{}", secret("single"));
    let before = secret("single");
    run(Command::new(manifests.path("secrets.sh")).arg(manifests.path("overlays/single"))).expect_success();
    assert_eq!(secret("single"), before, "those that are there stay");
    let finished = run(Command::new(manifests.path("secrets.sh")).arg("/nowhere"));
    finished.expect_one_line(2, &["usage"]);
}

#[test]
fn what_it_says_of_the_relay_is_so() {
    let Some(objects) = Manifests::copy().monitored("fleet").objects("fleet") else { return };
    for (name, value) in objects.environment(Ipv4Addr::LOCALHOST.into()) {
        assert!(name == "NODE_IP" || is_option(&name), "{name} is an option");
        assert!(!value.contains("$("), "{name} is {value}: what it names comes later");
    }
    let grace = objects.pod()["terminationGracePeriodSeconds"].as_u64().expect("it says how long");
    assert!(grace >= seconds(&toml(&read(CONFIGURATION), "drain-timeout")) + 30);
    assert_eq!(objects.one("ConfigMap")["data"]["hairpin.toml"], read(CONFIGURATION));
    let image = text(&objects.container()["image"]);
    assert_eq!(image.rsplit_once(':').expect("it has a tag").1, version());

    let ports: Vec<_> = objects.container()["ports"].as_array().expect("it has ports").iter().collect();
    let has = |port: u16, protocol: &str| {
        ports.iter().any(|is| is["containerPort"] == port && is["protocol"].as_str().unwrap_or("TCP") == protocol)
    };
    assert!(has(3478, "UDP") && has(3478, "TCP") && has(9641, "TCP"), "{ports:?}");
    let image = Image::read();
    let security = &objects.pod()["securityContext"];
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(security[key], image.user, "{key}");
    }
    assert_eq!(security["runAsNonRoot"], true);
    let mut granted: Vec<_> = grants(&objects);
    granted.sort_unstable();
    let mut wanted = image.grants();
    wanted.sort_unstable();
    assert_eq!(granted, wanted, "the runtime grants what the image's file has");
    // A name that begins with HAIRPIN_ would be an option.
    assert_eq!(objects.pod()["enableServiceLinks"], false);
}

fn grants(objects: &Objects) -> Vec<String> {
    let capabilities = &objects.container()["securityContext"]["capabilities"];
    assert_eq!(capabilities["drop"], serde_json::json!(["ALL"]));
    capabilities["add"].as_array().expect("some are added").iter().map(|name| text(name).to_owned()).collect()
}

#[test]
fn a_relay_in_such_a_pod_is_ready_and_forwards_in_the_kernel() {
    runs(&Manifests::copy(), false);
}

#[test]
fn one_that_is_monitored_is_reached_at_the_nodes_address() {
    runs(&Manifests::copy().monitored("single"), true);
}

fn runs(manifests: &Manifests, is_monitored: bool) {
    let Some(objects) = manifests.objects("single") else { return };
    if !server::is_installed("setcap") {
        return;
    }
    let lab = Lab::routed();
    let node = Lab::relay_ip(Family::V4);
    let container = pod(manifests, &objects);
    let mut environment = objects.environment(node);
    // The auto mode does not take a veth, and the lab's clients have a password.
    for (name, value) in [("HAIRPIN_XDP", "native"), ("HAIRPIN_USER", "alice:in-a-lab")] {
        environment.push((name.to_owned(), value.to_owned()));
    }
    let grants = grants(&objects);
    let escalates = objects.container()["securityContext"]["allowPrivilegeEscalation"] != false;
    assert!(!escalates);
    let runtime = Runtime { grants: &grants, escalates, environment: &environment };
    let mut relay = Process::spawn(&mut container.command(&lab.relay, &runtime, &["serve"]));

    let end = Instant::now() + PATIENCE;
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let (address, path) = objects.probe(probe, node);
        assert_eq!(address.ip(), if is_monitored { node } else { Ipv4Addr::LOCALHOST.into() }, "{probe}");
        while !lab.relay.enter(|| TcpStream::connect(address).is_ok()) {
            let may_come = relay.is_running() && Instant::now() < end;
            assert!(may_come, "{probe}: nobody is at {address}: {}", relay.wait(Duration::ZERO));
            thread::sleep(Duration::from_millis(20));
        }
        let answer = ask(http::tcp(&lab.relay, address), "GET", path, &[], "").all();
        assert_eq!(answer.status, 200, "{probe}: {answer}");
    }
    let call = Call::new(&lab, Family::V4);
    assert_eq!(call.relayed.ip(), node, "NODE_IP is what relayed addresses are made of");
    call.exchange(b"through a pod");
    let (address, _) = objects.probe("readinessProbe", node);
    let metrics = ask(http::tcp(&lab.relay, address), "GET", "/metrics", &[], "").all().body;
    let attached = metrics.lines().any(|line| line.starts_with("hairpin_xdp_attached{") && line.ends_with(" 1"));
    assert!(attached, "{metrics}");

    // A secret that is exchanged is followed.
    let secret = "a secret that nobody had before";
    let mut files = secrets(manifests, &objects);
    files.iter_mut().filter(|(name, _)| name == "auth-secrets").for_each(|(_, text)| *text = secret.into());
    container.volume(objects.mount("secrets"), &files, mode(&objects));
    let minted = run(Command::new(binary()).args(["credentials", "--auth-secret", secret, "--name", "bob", "--json"]));
    let minted: Value = serde_json::from_str(&minted.expect_success()).expect("it prints JSON");
    let come = || {
        let [client, server] = [(Lab::client_ip(Family::V4, 0), 0), (node, PORT)].map(SocketAddr::from);
        let [name, password] = ["username", "password"].map(|key| text(&minted[key]));
        Client::new(&lab.clients[0], client, server, name, password).allocate()
    };
    while let Err(refused) = come() {
        assert!(Instant::now() < end, "{refused:?}");
        thread::sleep(Duration::from_millis(200));
    }

    // The token of the Secret opens the rest, and no call is left that a drain would wait for.
    let token = fs::read_to_string(manifests.path("overlays/single/secrets/admin-tokens")).expect("it is there");
    let header = format!("Authorization: Bearer {}", token.trim());
    let close = |headers: &[&str]| {
        ask(http::tcp(&lab.relay, address), "DELETE", "/v1/allocations?all=true", headers, "").all().status
    };
    assert_eq!(close(&[]), 401);
    assert_eq!(close(&[&header]), 200);
    relay.signal(Signal::TERM);
    let finished = relay.wait(PATIENCE);
    assert_eq!(finished.code(), Some(0), "{finished}");
}

/// The pod's files: those of the ConfigMap and of the Secret.
fn pod(manifests: &Manifests, objects: &Objects) -> Container {
    let container = Container::new(&Image::read());
    assert_eq!(objects.volume("config")["configMap"]["name"], objects.one("ConfigMap")["metadata"]["name"]);
    assert_eq!(objects.volume("secrets")["secret"]["secretName"], objects.one("Secret")["metadata"]["name"]);
    let configuration = text(&objects.one("ConfigMap")["data"]["hairpin.toml"]).as_bytes().to_vec();
    container.volume(objects.mount("config"), &[("hairpin.toml".to_owned(), configuration)], 0o644);
    container.volume(objects.mount("secrets"), &secrets(manifests, objects), mode(objects));
    for (volume, mount) in [("run", "/run/hairpin"), ("state", "/var/lib/hairpin")] {
        assert_eq!(objects.mount(volume), mount);
        assert!(objects.volume(volume)["emptyDir"].is_object());
    }
    container
}

/// The files of the Secret.
fn secrets(manifests: &Manifests, objects: &Objects) -> Vec<(String, Vec<u8>)> {
    let folder = manifests.path("overlays/single/secrets");
    let names = objects.one("Secret")["data"].as_object().expect("it has data").keys();
    names.map(|name| (name.clone(), fs::read(folder.join(name)).expect("the Secret is made of it"))).collect()
}

/// Who may read them.
fn mode(objects: &Objects) -> u32 {
    let mode = objects.volume("secrets")["secret"]["defaultMode"].as_u64();
    mode.and_then(|mode| u32::try_from(mode).ok()).expect("it has a mode")
}

#[test]
fn dns_records_of_the_nodes_are_printed() {
    if !server::is_installed("jq") {
        return;
    }
    let nodes = serde_json::json!({"items": [
        {"metadata": {"name": "one.example.org"}, "status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.5"},
            {"type": "ExternalIP", "address": "203.0.113.5"},
            {"type": "ExternalIP", "address": "2001:db8::5"}]}},
        {"metadata": {"name": "two"}, "status": {"addresses": [{"type": "InternalIP", "address": "203.0.113.6"}]}},
    ]});
    let printed = records(&nodes).expect_success();
    let lines: Vec<_> = printed.lines().collect();
    let services = ["_stun._udp", "_turn._udp", "_turn._tcp"];
    let services =
        |host: &str| services.map(|name| format!("{name}.turn.test. 60 IN SRV 10 10 3478 {host}.turn.test."));
    let mut wanted = vec!["one.turn.test. 60 IN A 203.0.113.5".to_owned()];
    wanted.push("one.turn.test. 60 IN AAAA 2001:db8::5".to_owned());
    wanted.extend(services("one"));
    wanted.push("two.turn.test. 60 IN A 203.0.113.6".to_owned());
    wanted.extend(services("two"));
    assert_eq!(lines, wanted);
    let none = records(&serde_json::json!({"items": []}));
    assert!(none.code() != Some(0) && none.stderr.contains("no node is labelled"), "{none}");
}

fn records(nodes: &Value) -> Finished {
    let folder = Folder::new("nodes");
    let file = folder.path().join("nodes.json");
    fs::write(&file, nodes.to_string()).expect("the folder is ours");
    let script = repository("deploy/kubernetes/records.sh");
    run(Command::new("sh").args(["-c", &format!("{} turn.test < {}", script.display(), file.display())]))
}

#[test]
fn the_operator_takes_rules_and_alerts() {
    let Some(interpreter) = python::from_pypi() else { return };
    let rules = run(&mut Command::new(repository("deploy/kubernetes/rules.sh"))).expect_success();
    let folder = Folder::new("rules");
    let file = folder.path().join("rules.yaml");
    fs::write(&file, &rules).expect("the folder is ours");
    let printed = judged(interpreter, "kubernetes_valid.py", &file).expect_success();
    let objects: Vec<Value> = serde_json::from_str(&printed).expect("it prints JSON");
    let count = |objects: &[Value]| -> usize {
        let groups = objects.iter().flat_map(|object| object["spec"]["groups"].as_array().expect("it has groups"));
        groups.map(|group| group["rules"].as_array().map_or(0, Vec::len)).sum()
    };
    let is = read("deploy/prometheus/hairpin.alerts.yml").matches("- alert: ").count()
        + read("deploy/prometheus/hairpin.recording.yml").matches("- record: ").count();
    assert_eq!((objects.len(), count(&objects)), (2, is));
    fs::write(&file, rules.replace("expr:", "exrp:")).expect("the folder is ours");
    assert_eq!(judged(interpreter, "kubernetes_valid.py", &file).code(), Some(1));
}
