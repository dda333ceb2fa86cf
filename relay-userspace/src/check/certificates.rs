//! Certificates: whether they can be read and used as the relay would, and for how long.

use super::{Finding, Findings};
use crate::clock::unix_seconds;
use crate::config::Config;
use crate::tls::{self, Certificate};

/// Less time is left where nothing renews it.
const SOON: i64 = 14;
const DAY: i64 = 86_400;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::about("certificates");
    let mut read = Vec::new();
    for files in &config.certificates {
        match Certificate::read(files) {
            Ok(certificate) => {
                let ends = hairpin_dtls::details(&certificate.chain).map(|details| details.expires);
                let now = i64::try_from(unix_seconds()).unwrap_or(i64::MAX);
                let complaint = certificate.complaint();
                judge_time(&mut findings, &files.certificate.display().to_string(), complaint, ends, now);
                read.push(certificate);
            }
            Err(error) => findings.error(chain(&error), "let the user that hairpin runs as read it"),
        }
    }
    if !read.is_empty() && read.len() == config.certificates.len() {
        let used = tls::server_config(&read).map(drop).map_err(|error| chain(&error));
        let used = used.and_then(|()| tls::dtls_context(&read).map(drop).map_err(|error| format!("{error:#}")));
        if let Err(error) = used {
            findings.error(error, "");
        }
    }
    findings.list
}

fn judge_time(findings: &mut Findings, name: &str, complaint: Option<String>, ends: Option<i64>, now: i64) {
    let days = ends.map(|ends| (ends - now).div_euclid(DAY));
    match (complaint, days) {
        (Some(complaint), _) => findings.warning(complaint, "clients that look at it will not connect: renew it"),
        (None, Some(days)) if days < SOON => {
            findings.warning(format!("{name} expires in {days} days"), "see what should have renewed it");
        }
        (None, Some(days)) => findings.ok(format!("{name} is valid for {days} days")),
        // What cannot be read is told as an error.
        (None, None) => {}
    }
}

/// An error with its reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let reasons = std::iter::successors(error.source(), |error| error.source());
    reasons.fold(error.to_string(), |text, reason| format!("{text}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_early() {
        let judge = |complaint: Option<&str>, ends| {
            let mut findings = Findings::about("certificates");
            judge_time(&mut findings, "c.pem", complaint.map(str::to_owned), ends, 1_000_000);
            findings.list
        };
        assert_eq!(levels(&judge(None, Some(1_000_000 + 60 * DAY))), [Level::Ok]);
        expect(&judge(None, Some(1_000_000 + 3 * DAY)), Level::Warning, "expires in 3 days");
        expect(&judge(Some("c.pem has expired"), Some(0)), Level::Warning, "renew it");
    }
}
