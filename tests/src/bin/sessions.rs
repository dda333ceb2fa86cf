//! What sessions of two legs cost: `tests/bench.sh sessions [--sessions N] [--json]`.
//!
//! A relay in the lab is asked for sessions of two ICE legs over its admin interface, by several askers at once, each request
//! over a connection of its own. Then a full agent on either side of each session nominates its pair. Figures: sessions
//! created a second, and nominated; memory of the daemon for each; and, for some of them, the time from the second nomination's
//! answer until the kernel has forwarded a datagram of media, as the admin interface tells it: what asking takes is in it.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hairpin_proto::stun::LongTermKey;
use hairpin_tests::lab::ice::check;
use hairpin_tests::lab::relay::{Relay, binary};
use hairpin_tests::lab::{Family, Folder, Lab, http};
use serde_json::{Value, json};

/// Who asks for sessions at the same time.
const ASKERS: usize = 4;
/// Sessions whose way into the kernel is timed.
const TIMED: usize = 500;
/// What the median of those times must not exceed.
const TARGET: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(5);
/// RTP of version 2.
const MEDIA: [u8; 172] = {
    let mut media = [0; 172];
    media[0] = 0x80;
    media
};

/// What sessions of two legs cost.
#[derive(Parser)]
struct Options {
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Figures as JSON.
    #[arg(long)]
    json: bool,
}

/// One leg as its remote knows it.
struct Leg {
    address: SocketAddr,
    ufrag: String,
    key: LongTermKey,
}

struct Session {
    id: String,
    legs: [Leg; 2],
}

fn main() -> Result<ExitCode> {
    let Options { sessions: count, json } = Options::parse();
    let lab = Lab::routed();
    let folder = Folder::new("sessions");
    let socket = folder.path().join("admin.sock");
    let mut command = lab.relay.command(binary());
    command.env("HAIRPIN_ADMIN_SOCKET", &socket);
    command.args(["serve", "--user", "alice:secret", "--xdp", "native", "--interface", "eth0"]);
    command.args(["--listen", &format!("{}:3478", Lab::relay_ip(Family::V4))]);
    // All agents have one address, and would be taken for one stranger who asks too much.
    command.args(["--relay-ports", "10000-65535", "--max-allocations", "16", "--source-packet-rate", "off"]);
    command.args(["--ice-max-sessions", &count.to_string()]);
    let relay = Relay::start_with(&lab.relay, &mut command);
    let memory = relay.memory();

    let start = Instant::now();
    let sessions = create(&socket, count)?;
    let created = start.elapsed();
    let agents = [&lab.clients[0], &lab.peers[0]].map(|host| host.enter(agent));
    let (timed, others) = sessions.split_at(TIMED.min(count));
    let start = Instant::now();
    for session in others {
        for (leg, agent) in session.legs.iter().zip(&agents) {
            nominate(leg, agent)?;
        }
    }
    let nominated = start.elapsed();
    let mut times = Vec::new();
    for session in timed {
        times.push(until_forwarded(session, &agents, &socket)?);
    }
    times.sort_unstable();
    let bytes = relay.memory().saturating_sub(memory) / count.max(1) as u64;
    let percentile = |part: usize| times[(times.len() - 1) * part / 100];
    let (median, p99) = (percentile(50), percentile(99));
    let connected = ask(&socket, "GET", "/v1/ice/sessions?label=bench", "")?;
    let connected = connected["sessions"].as_array().map_or(0, |all| {
        all.iter()
            .filter(|one| one["state"] == "connected" && one["streams"][0]["components"][0]["in_kernel"] == true)
            .count()
    });
    ensure!(connected == count, "{connected} of {count} sessions are connected and in the kernel");
    let rate = |all: usize, took: Duration| f64::from(u32::try_from(all).unwrap_or(u32::MAX)) / took.as_secs_f64();
    let (create_rate, nominate_rate) = (rate(count, created), rate(2 * others.len(), nominated));
    if json {
        let figures = json!({
            "sessions": count,
            "created_per_second": create_rate,
            "nominations_per_second": nominate_rate,
            "bytes_per_session": bytes,
            "kernel_median_ms": median.as_secs_f64() * 1e3,
            "kernel_p99_ms": p99.as_secs_f64() * 1e3,
        });
        println!("{figures:#}");
    } else {
        println!("{count} sessions created: {create_rate:.0} a second, by {ASKERS} askers");
        println!("nominations: {nominate_rate:.0} a second, by one agent that waits for each answer");
        println!("memory of the daemon: {bytes} bytes for each session");
        println!("from the second nomination until the kernel has forwarded: median {median:.2?}, 99 % {p99:.2?}");
    }
    relay.stop();
    Ok(if median <= TARGET { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn create(socket: &Path, count: usize) -> Result<Vec<Session>> {
    let share = |asker: usize| count / ASKERS + usize::from(asker < count % ASKERS);
    let created = thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|asker| scope.spawn(move || (0..share(asker)).map(|_| create_one(socket)).collect::<Result<Vec<_>>>()))
            .collect();
        askers.into_iter().map(|asker| asker.join().expect("an asker returns its errors")).collect::<Result<Vec<_>>>()
    })?;
    Ok(created.into_iter().flatten().collect())
}

fn create_one(socket: &Path) -> Result<Session> {
    let timeouts = json!({"setup": 3600, "paused": 3600, "idle": 0});
    let body = json!({"label": "bench", "a": {"kind": "ice"}, "b": {"kind": "ice"}, "timeouts": timeouts});
    let session = ask(socket, "POST", "/v1/ice/sessions", &body.to_string())?;
    let leg = |name: &str| -> Result<Leg> {
        let leg = &session[name];
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{session}"));
        Ok(Leg {
            address: text(&leg["candidates"][0]["address"])?.parse()?,
            ufrag: text(&leg["ufrag"])?,
            key: LongTermKey::from_bytes(text(&leg["pwd"])?.as_bytes()),
        })
    };
    let id = session["id"].as_str().with_context(|| format!("{session}"))?.to_owned();
    Ok(Session { id, legs: [leg("a")?, leg("b")?] })
}

fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value> {
    let headers = if body.is_empty() { &[][..] } else { &["Content-Type: application/json"][..] };
    let answer = http::ask(http::unix(socket), method, path, headers, body).all();
    ensure!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

/// A socket that is the remote of every session's leg on its side.
fn agent() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a host of the lab has free ports");
    socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    socket
}

/// Checks a leg's candidate with USE-CANDIDATE, and waits for the answer.
fn nominate(leg: &Leg, agent: &UdpSocket) -> Result<()> {
    let check = check(&leg.ufrag, &leg.key, true, *b"sessions..12");
    agent.send_to(&check, leg.address)?;
    let mut answer = [0; 2048];
    loop {
        let (length, from) = agent.recv_from(&mut answer)?;
        if from == leg.address && answer[..length].starts_with(&[1, 1]) {
            return Ok(());
        }
    }
}

/// From the second nomination on, sends media until some of it was forwarded by the kernel.
fn until_forwarded(session: &Session, agents: &[UdpSocket; 2], socket: &Path) -> Result<Duration> {
    for (leg, agent) in session.legs.iter().zip(agents) {
        nominate(leg, agent)?;
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        agents[0].send_to(&MEDIA, session.legs[0].address)?;
        let state = ask(socket, "GET", &format!("/v1/ice/sessions/{}", session.id), "")?;
        if state["streams"][0]["components"][0]["kernel"]["packets"].as_u64().unwrap_or(0) > 0 {
            return Ok(start.elapsed());
        }
    }
    anyhow::bail!("the kernel never forwarded {}", session.id)
}
