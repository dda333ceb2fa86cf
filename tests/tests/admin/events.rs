//! What happens to allocations, as it happens.

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::http::{ask, unix};

use crate::bed::Bed;

#[test]
fn the_end_of_an_allocation_is_told_to_all_who_watch_it() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let _client = bed.allocated();
    let watch = |query: &str| ask(unix(&bed.socket), "GET", &format!("/v1/allocations/events{query}"), &[], "");
    let mut all = watch("");
    let mut hers = watch("?user=alice");
    assert_eq!(all.head.status, 200);
    let headers = &all.head;
    assert_eq!(headers.header("content-type"), Some("text/event-stream"));
    assert_eq!(headers.header("cache-control"), Some("no-cache"));

    let id = bed.unix("GET", "/v1/allocations?user=alice", &[], "").json()[0]["id"].clone();
    let path = format!("/v1/allocations/{}", id.as_str().expect("ids are text"));
    assert_eq!(bed.unix("DELETE", &path, &[], "").json()["closed"], 1);
    for event in [all.event(), hers.event()] {
        assert_eq!(event["event"], "ended", "{event}");
        assert_eq!(event["reason"], "closed", "{event}");
        assert_eq!(event["allocation"]["id"], id, "{event}");
    }
    // Neither a watcher that is there nor one that has gone keeps the relay from ending.
    drop(hers);
    bed.relay.stop();
}
