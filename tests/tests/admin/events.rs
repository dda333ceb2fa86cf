//! What happens to allocations, as it happens.

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::http::{ask, unix};
use hairpin_tests::lab::turn::Refused;

use crate::bed::Bed;

#[test]
fn the_life_of_an_allocation_is_told_to_all_who_watch_it_and_its_client_sees_the_end() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let watch = |query: &str| ask(unix(&bed.socket), "GET", &format!("/v1/allocations/events{query}"), &[], "");
    let mut all = watch("");
    let mut hers = watch("?user=alice");
    assert_eq!(all.head.status, 200);
    assert_eq!(all.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(all.head.header("cache-control"), Some("no-cache"));

    let mut client = bed.allocated();
    let allocation = bed.unix("GET", "/v1/allocations?user=alice", &[], "").json()[0].clone();
    assert_eq!(allocation["client"], client.local().to_string());
    let id = allocation["id"].as_str().expect("ids are text");
    for event in [all.event(), hers.event()] {
        assert_eq!(event["event"], "began", "{event}");
        assert_eq!(event["allocation"]["id"], id, "{event}");
    }
    let others = bed.unix("DELETE", "/v1/allocations?client=127.0.0.2", &[], "");
    assert_eq!(others.json()["closed"], 0, "this is none of them");
    assert_eq!(bed.unix("DELETE", &format!("/v1/allocations/{id}"), &[], "").json()["closed"], 1);
    assert!(matches!(client.refresh(600), Err(Refused(437, _))), "it is gone when the answer is there");
    for event in [all.event(), hers.event()] {
        assert_eq!(event["event"], "ended", "{event}");
        assert_eq!(event["reason"], "closed", "{event}");
        assert_eq!(event["allocation"]["id"], id, "{event}");
    }
    bed.unix("DELETE", &format!("/v1/allocations/{id}"), &[], "").expect_problem(404);
    // Neither a watcher that is there nor one that has gone keeps the relay from ending.
    drop(hers);
    bed.relay.stop();
}
