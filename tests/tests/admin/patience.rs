//! Clients that begin and do not end.

use std::io::{Read as _, Write as _};

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::http::{Connection, Stream, unix};

use crate::bed::Bed;

/// As many as one listener serves at once, and more.
const CROWD: usize = 200;

/// Waits for the end of a connection; what came before.
fn end_of(mut connection: Box<dyn Connection>) -> String {
    let mut said = String::new();
    connection.read_to_string(&mut said).expect("it ends before the test's patience does");
    said
}

#[test]
fn half_a_request_is_not_waited_for() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[("HAIRPIN_ADMIN_TOKEN", "northern-light")]);
    let begun = |connection: Box<dyn Connection>, text: &str| {
        let mut connection = connection;
        connection.write_all(text.as_bytes()).expect("it is open");
        connection
    };
    let connections = || [bed.connection(), unix(&bed.socket)];
    // All of them wait at the same time.
    let silent = connections();
    let heads = connections().map(|connection| begun(connection, "GET /v1/status HTTP/1.1\r\nHost: lab\r\nX-"));
    let body = "POST /v1/drain HTTP/1.1\r\nHost: lab\r\nAuthorization: Bearer northern-light\r\nConnection: close\r\n\
        Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let bodies = connections().map(|connection| begun(connection, body));
    let idle = connections().map(|connection| begun(connection, "GET /healthz HTTP/1.1\r\nHost: lab\r\n\r\n"));
    assert_eq!(bed.tcp("GET", "/healthz", &[], "").status, 200);

    for connection in silent {
        assert_eq!(end_of(connection), "");
    }
    for connection in heads {
        let said = end_of(connection);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    }
    for connection in bodies {
        Stream::receive(connection).expect("an answer").all().expect_problem(408);
    }
    for connection in idle {
        assert!(end_of(connection).starts_with("HTTP/1.1 200 "), "an answer, and then the end");
    }
    bed.relay.stop();
}

#[test]
fn a_crowd_that_says_half_of_something_keeps_nobody_waiting() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let crowd: Vec<_> = (0..300)
        .map(|at| {
            let mut connection = bed.connection();
            if at % 2 == 0 {
                // It may have ended already, for those that came behind it.
                let _ = connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: lab\r\nX-");
            }
            connection
        })
        .collect();
    assert_eq!(bed.tcp("GET", "/healthz", &[], "").status, 200);
    let mut crowd = crowd.into_iter();
    let first = crowd.next().expect("there are some");
    assert_eq!(end_of(first), "", "the place of the first was given to another");
    bed.relay.stop();
}

#[test]
fn a_crowd_over_tcp_shuts_nobody_out_of_the_unix_socket_nor_for_long_out_of_tcp() {
    let host = Namespace::new("admin");
    let bed = Bed::new(&host, &[]);
    let crowd: Vec<_> = (0..CROWD).map(|_| bed.connection()).collect();
    assert_eq!(bed.unix("GET", "/v1/status", &[], "").status, 200);
    assert_eq!(bed.tcp("GET", "/healthz", &[], "").status, 200, "as soon as the crowd has gone");
    drop(crowd);
    bed.relay.stop();
}
