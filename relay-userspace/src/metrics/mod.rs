//! Prometheus exposition. Nothing is counted here: at each scrape, what shards and kernel have counted is collected.
//!
//! A [`Snapshot`] is what was collected, [`Family`] lists the metrics that there are, `record` says which number is which
//! sample, `exposition` writes them.

mod exposition;
mod family;
mod process;
mod record;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use self::exposition::Page;
pub use self::family::{Family, Kind};
pub use self::process::Process;
pub use self::snapshot::{Certificate, Configuration, Credentials, Labelled, Ports, Snapshot, Traces, UserStore};
use crate::datapath::{AttachedMode, InterfaceStatus};

/// Renders snapshots.
#[derive(Debug, Default)]
pub struct Exporter {
    attachments: Mutex<BTreeMap<Attachment, bool>>,
}

/// Interface, mode and reason of an attachment.
type Attachment = [String; 3];

impl Exporter {
    /// The exposition of a snapshot, as text.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        let mut page = Page::new();
        record::record(&mut page, snapshot);
        for ([interface, mode, reason], is_attached) in self.attached(&snapshot.interfaces) {
            page.put(Family::XdpAttached, &[&interface, &mode, &reason], u8::from(is_attached));
        }
        page.text()
    }

    /// Every attachment that there ever was, and whether it is there now: a series that was 1 has to become 0.
    fn attached(&self, interfaces: &[InterfaceStatus]) -> BTreeMap<Attachment, bool> {
        // A panic elsewhere leaves what has been seen.
        let mut seen = self.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values_mut().for_each(|is_attached| *is_attached = false);
        for InterfaceStatus { interface, mode, reason } in interfaces {
            let reason = reason.as_ref().map_or("", |reason| reason.cause.label());
            let attachment = [interface.clone(), mode.label().to_owned(), reason.to_owned()];
            seen.insert(attachment, *mode != AttachedMode::None);
        }
        seen.clone()
    }
}

#[cfg(test)]
mod tests {
    use hairpin_common::maps::Count;
    use hairpin_common::verdict::Verdict;

    use super::*;
    use crate::datapath;

    #[test]
    fn an_attachment_that_is_gone_stays_as_zero_and_comes_back() {
        let exporter = Exporter::default();
        let native = "hairpin_xdp_attached{interface=\"eth0\",mode=\"native\",reason=\"\"}";
        let gone = "hairpin_xdp_attached{interface=\"eth0\",mode=\"none\",reason=\"gone\"}";
        let reason = datapath::Reason { cause: datapath::Cause::Gone, text: "it is away".to_owned() };
        let away = (AttachedMode::None, Some(reason));
        let there = (AttachedMode::Native, None);
        let steps = [(&there, vec![(native, 1)]), (&away, vec![(native, 0), (gone, 0)]), (&there, vec![(native, 1)])];
        for ((mode, reason), expected) in steps {
            let interface = "eth0".to_owned();
            let status = InterfaceStatus { interface, mode: *mode, reason: reason.clone() };
            let text = exporter.render(&Snapshot { interfaces: vec![status], ..Snapshot::default() });
            for (series, value) in expected {
                assert!(text.contains(&format!("\n{series} {value}\n")), "{series} is not {value}: {text}");
            }
        }
    }

    #[test]
    fn what_the_program_answers_is_a_request_with_a_response_and_nothing_that_is_relayed() {
        let mut kernel = datapath::Counters::default();
        kernel.verdicts[Verdict::Binding as usize] = Count { packets: 7, bytes: 300 };
        let text = Exporter::default().render(&Snapshot { kernel, ..Snapshot::default() });
        for line in [
            "hairpin_stun_requests_total{path=\"kernel\",method=\"binding\"} 7",
            "hairpin_stun_responses_total{path=\"kernel\",method=\"binding\",code=\"200\"} 7",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
        assert!(!text.contains("direction=\"binding\""), "{text}");
    }

    #[test]
    fn what_the_program_sent_is_relayed_or_media_or_both() {
        let mut kernel = datapath::Counters::default();
        for (verdict, packets) in [
            (Verdict::ToPeer, 1),
            (Verdict::ToClient, 2),
            (Verdict::RelayToRelay, 4),
            (Verdict::Media, 8),
            (Verdict::ClientToMedia, 16),
            (Verdict::MediaToClient, 32),
            (Verdict::Binding, 64),
        ] {
            kernel.verdicts[verdict as usize] = Count { packets, bytes: 100 * packets };
        }
        let text = Exporter::default().render(&Snapshot { kernel, ..Snapshot::default() });
        for line in [
            "hairpin_relayed_packets_total{path=\"kernel\",direction=\"to_peer\"} 21",
            "hairpin_relayed_bytes_total{path=\"kernel\",direction=\"to_peer\"} 2100",
            "hairpin_relayed_packets_total{path=\"kernel\",direction=\"to_client\"} 38",
            "hairpin_relayed_bytes_total{path=\"kernel\",direction=\"to_client\"} 3800",
            "hairpin_relay_to_relay_packets_total 4",
            "hairpin_media_packets_total{path=\"kernel\"} 56",
            "hairpin_media_bytes_total{path=\"kernel\"} 5600",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn shards_that_do_not_answer_show() {
        let text = Exporter::default().render(&Snapshot { shards_all: 4, shards_up: 3, ..Snapshot::default() });
        assert!(text.contains("\nhairpin_shards 4\n") && text.contains("\nhairpin_shards_up 3\n"), "{text}");
    }
}
