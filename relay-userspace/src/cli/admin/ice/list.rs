//! `hairpin ice list`: a line for each session.

use super::super::human::{age, named, percent, size};
use super::super::output::note;
use super::super::table::{Column, table};
use crate::api::ice::{Session, Totals};

/// The part of the packets that the kernel has forwarded.
pub(super) fn share(totals: &Totals) -> String {
    let Totals { a_to_b, b_to_a, kernel } = totals;
    let all = a_to_b.packets.saturating_add(b_to_a.packets);
    if all == 0 { "-".to_owned() } else { percent(kernel.packets, all) }
}

pub(super) fn list(sessions: &[Session], now: u64) -> String {
    if sessions.is_empty() {
        note("there is no such session");
    }
    let columns = [
        Column::Left("ID"),
        Column::Left("LABEL"),
        Column::Left("STATE"),
        Column::Left("LEG A"),
        Column::Left("LEG B"),
        Column::Right("STREAMS"),
        Column::Right("AGE"),
        Column::Right("A TO B"),
        Column::Right("B TO A"),
        Column::Right("IN KERNEL"),
    ];
    let rows = sessions.iter().map(|session| {
        let totals = &session.totals;
        [
            session.id.clone(),
            named(&session.label),
            session.state.clone(),
            format!("{} {}", session.a.kind, session.a.state),
            format!("{} {}", session.b.kind, session.b.state),
            session.streams.len().to_string(),
            age(now.saturating_sub(session.created)),
            size(totals.a_to_b.bytes),
            size(totals.b_to_a.bytes),
            share(totals),
        ]
    });
    table(columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_line() {
        let silent = Session {
            id: "1-2".to_owned(),
            label: "a\nb".to_owned(),
            state: "new".to_owned(),
            streams: Vec::new(),
            totals: Totals::default(),
            ..Session::example()
        };
        let expected = "\
ID    LABEL    STATE      LEG A          LEG B            STREAMS    AGE  A TO B  B TO A  IN KERNEL
0-17  call     connected  ice nominated  plain nominated        1  3m12s  9.0 MB  1.2 MB        75%
1-2   a\\u{a}b  new        ice nominated  plain nominated        0  3m12s     0 B     0 B          -
";
        assert_eq!(list(&[Session::example(), silent], 1_192), expected);
        assert_eq!(list(&[], 1_192), "");
        let nameless = Session { label: String::new(), ..Session::example() };
        assert!(list(&[nameless], 1_192).contains("\n0-17  (none)"));
    }
}
