//! The kernel path under load. Alone in its file, so that no other test competes for the processors.

use hairpin_tests::lab::load::Load;
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::topology::ROUTER_LINK;
use hairpin_tests::lab::{Family, Lab, Metrics, Relay};

/// Each packet is relayed twice: this makes 100,000 a second.
const LOAD: Load = Load { rate: 50_000, seconds: 5, payload: 160, allocations: 10 };
/// Frames on the relay's link that carry no application data: requests, responses, address resolution.
const OTHER_FRAMES: u64 = 200;

#[test]
fn nothing_is_lost_at_100_000_packets_a_second_and_the_kernel_forwards_them() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        let (before, frames_before) = (relay.metrics(), frames(&lab));
        let outcome = LOAD.run(&lab, family);
        println!("{family:?}: {}", outcome.report);
        let (sent, asked) = (outcome.count("packets_sent"), u64::from(LOAD.rate * LOAD.seconds));
        let (after, frames_after) = (relay.metrics(), frames(&lab));

        // The relay's own link: what went in came out.
        let (to_relay, from_relay) = (frames_after.0 - frames_before.0, frames_after.1 - frames_before.1);
        assert!(from_relay + OTHER_FRAMES >= to_relay, "{to_relay} frames to the relay, {from_relay} from it");
        for way in ["to_peer", "to_client"] {
            let relayed = ["kernel", "userspace"].map(|path| packets(&after, path, way) - packets(&before, path, way));
            let all: u64 = relayed.iter().sum();
            assert!(all > asked / 4, "{family:?} {way}: {all} packets are no load: {}", outcome.report);
            assert!(relayed[0] * 1000 >= all * 999, "{family:?} {way}: kernel and userspace {relayed:?}");
        }

        // From end to end. A generator that could not keep its own pace, for whatever else this host does, also fails to
        // take what comes back, and its links to the router overflow: then only the relay's link can be judged.
        assert_eq!(outcome.count("packets_duplicated"), 0, "{}", outcome.report);
        if outcome.count("packets_skipped") < asked / 100 {
            assert_eq!(outcome.count("packets_lost"), 0, "{}", outcome.report);
            for way in ["to_peer", "to_client"] {
                let all = |metrics| packets(metrics, "kernel", way) + packets(metrics, "userspace", way);
                assert_eq!(all(&after) - all(&before), sent, "{family:?} {way}: every packet is counted once");
            }
        } else {
            println!("this host is too busy to generate the load: only the relay's link is judged");
        }
    }
    relay.stop();
}

fn packets(metrics: &Metrics, path: &str, direction: &str) -> u64 {
    metrics.sum("hairpin_relayed_packets_total", &[("path", path), ("direction", direction)])
}

/// Frames that the router has sent to the relay and received from it, since their link exists.
fn frames(lab: &Lab) -> (u64, u64) {
    let shown = run(lab.router.command("ip").args(["-s", "-j", "link", "show", ROUTER_LINK])).expect_success();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
    let count = |way: &str| shown[0]["stats64"][way]["packets"].as_u64().expect("ip counts packets");
    (count("tx"), count("rx"))
}
