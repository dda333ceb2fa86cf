//! URLs of stores.

use hairpin_users::{StoreKind, StoreUrl, StoreUrlError};

fn printed(text: &str) -> String {
    text.parse::<StoreUrl>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn each_kind_of_store_is_named() {
    for (text, kind, printed) in [
        ("sqlite:///var/lib/turn/turndb", StoreKind::Sqlite, "sqlite:///var/lib/turn/turndb"),
        ("sqlite:///a%20b/100%25.db", StoreKind::Sqlite, "sqlite:///a b/100%.db"),
        ("postgres://turn:pw@db.example:5433/coturn", StoreKind::Postgres, "postgres://turn@db.example:5433/coturn"),
        ("postgresql://turn@db.example", StoreKind::Postgres, "postgres://turn@db.example:5432/turn"),
        ("postgres://turn@[2001:db8::1]/db", StoreKind::Postgres, "postgres://turn@[2001:db8::1]:5432/db"),
        (
            "postgres:///db?host=/run/postgresql&user=turn&port=5433",
            StoreKind::Postgres,
            "postgres://turn@/db?host=/run/postgresql&port=5433",
        ),
        ("postgres://?host=h&user=u&dbname=d&password=pw", StoreKind::Postgres, "postgres://u@h:5432/d"),
        ("redis://cache.example", StoreKind::Redis, "redis://cache.example:6379/0"),
        ("redis://:pw@cache.example:7000/2", StoreKind::Redis, "redis://cache.example:7000/2"),
        ("rediss://turn:pw@cache.example/1", StoreKind::Redis, "rediss://turn@cache.example:6379/1"),
        (
            "redis+unix:///run/redis.sock?db=3&user=turn&password=pw",
            StoreKind::Redis,
            "redis+unix:///run/redis.sock?db=3",
        ),
    ] {
        let url: StoreUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((url.kind(), url.to_string().as_str()), (kind, printed), "{text}");
        assert_eq!(format!("{url:?}"), format!("StoreUrl({printed})"));
    }
}

#[test]
fn no_password_is_printed() {
    for text in [
        "postgres://turn:s3cret@h/db",
        "postgres://turn:s3%40cret@h/db",
        "postgres://turn:a@s3cret@h/db",
        "postgres://h/db?user=turn&password=s3cret",
        "redis://:s3cret@h",
        "redis+unix:///s?password=s3cret",
    ] {
        let url: StoreUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let with = url.clone().with_password("s3cret too");
        assert!(![url.to_string(), format!("{url:?}"), format!("{with:?}"), with.to_string()].concat().contains("s3"));
        assert_ne!(url, with);
    }
    // Neither is one where it should not be.
    for text in [
        "postgres:turn:s3cret@h/db",
        "s3cret://h",
        "postgres://turn:s3cret@h:s3cret/db",
        "postgres://turn:s3cret/x@h/db",
        "postgres://turn:s3cret?x@h/db",
        "postgres://turn:s3cret%@h/db",
        "postgres://turn@h/db?s3cret=s3cret",
        "postgres://turn@h/db?sslmode=s3cret",
        "redis://h/s3cret",
        "sqlite://s3cret",
        "redis+unix://s3cret",
    ] {
        let error = text.parse::<StoreUrl>().expect_err(text);
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{text}: {error}");
    }
}

#[test]
fn what_is_no_store_is_told() {
    use StoreUrlError as Error;
    for (text, error) in [
        ("", Error::Scheme),
        ("users.db", Error::Scheme),
        ("/users.db", Error::Scheme),
        ("mysql://u:p@h/db", Error::Scheme),
        ("SQLITE:///x", Error::Scheme),
        ("sqlite:/x", Error::Scheme),
        ("sqlite://x", Error::SqlitePath),
        ("sqlite://", Error::SqlitePath),
        ("sqlite:///x?mode=rw", Error::SqlitePath),
        ("sqlite:///x%0", Error::Escape),
        ("sqlite:///x%00", Error::Escape),
        ("sqlite:///x%ff", Error::Escape),
        ("sqlite:///x%+1", Error::Escape),
        ("postgres://h/db", Error::User),
        ("postgres://u@/db", Error::Host),
        ("postgres://u@h:0/db", Error::Port),
        ("postgres://u@h:65536/db", Error::Port),
        ("postgres://u@h:+1/db", Error::Port),
        ("postgres://u@h:/db", Error::Port),
        ("postgres://u@::1/db", Error::Port),
        ("postgres://u@[::1/db", Error::Host),
        ("postgres://u@[h]/db", Error::Host),
        ("postgres://u@[::1]5432/db", Error::Port),
        ("postgres://u@h/db?sslmode=prefer", Error::SslMode),
        ("postgres://u@h/db?connect_timeout=1", Error::Parameter),
        ("postgres://u@h/db?sslmode", Error::Parameter),
        ("postgres://u@h/db?sslmode=disable&sslrootcert=/x", Error::RootCertificate),
        ("postgres://u@/db?host=/run&sslrootcert=/x", Error::RootCertificate),
        ("redis://", Error::Host),
        ("redis://h/x", Error::Database),
        ("redis://h/-1", Error::Database),
        ("redis://h/0/1", Error::Database),
        ("redis://h?sslrootcert=/x", Error::RootCertificate),
        ("rediss://h?x=y", Error::Parameter),
        ("redis+unix://x", Error::SocketPath),
        ("redis+unix:///x?db=x", Error::Database),
        ("redis+unix:///x?host=x", Error::Parameter),
    ] {
        assert_eq!(text.parse::<StoreUrl>(), Err(error), "{text}");
    }
}

#[test]
fn a_log_gets_one_line() {
    assert_eq!(printed("sqlite:///a%0ab%1b[31m"), "sqlite:///a\u{fffd}b\u{fffd}[31m");
}
