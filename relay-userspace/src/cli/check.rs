//! `hairpin check`: whether the relay would start on this host, and how well it would run.

use std::process::ExitCode;

use clap::builder::styling::Style;
use serde::Serialize;

use super::settings::{Flags, Problem, Source};
use super::style::{BAD, GOOD, WARNING, paint};
use super::{USAGE, complain_of_all, print};
use crate::check::{self, Finding, Level, would_start};
use crate::printable;

/// Say whether the relay would start on this host, and how well it would run. Asks nobody but user stores.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON: starts (whether it would), findings (level, about, text, advice), and problems of the configuration
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: Flags,
}

#[derive(Serialize)]
struct Report<'r> {
    starts: bool,
    problems: Vec<String>,
    findings: &'r [Finding],
}

/// Prints what was found. The exit code is 0 if the relay would start, 1 if not, and 2 if the configuration is wrong.
pub(super) fn run(args: Args) -> ExitCode {
    let loaded = match Source::new(args.flags).load() {
        Ok(loaded) => loaded,
        Err(problems) if args.json => {
            let problems = problems.iter().map(Problem::to_string).collect();
            return print(&json(&Report { starts: false, problems, findings: &[] }), ExitCode::from(USAGE));
        }
        Err(problems) => return complain_of_all(&problems),
    };
    let of_configuration = |text| Finding { level: Level::Warning, about: "configuration", text, advice: None };
    let mut findings: Vec<_> = loaded.warnings.into_iter().map(of_configuration).collect();
    findings.extend(check::check(&loaded.config));
    let starts = would_start(&findings);
    let text = if args.json {
        json(&Report { starts, problems: Vec::new(), findings: &findings })
    } else {
        text(&findings, starts)
    };
    print(&text, if starts { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn json(report: &Report<'_>) -> String {
    printable::json(&serde_json::to_string_pretty(report).expect("a report has strings only as keys"))
}

fn text(findings: &[Finding], starts: bool) -> String {
    // Each has two lines at most, of which names that were read are a part.
    let clean = |line: &str| printable::clean(line) + "\n";
    let painted = |finding: &Finding| {
        let text: String = finding.to_string().lines().map(clean).collect();
        let level = finding.level.to_string();
        let style = match finding.level {
            Level::Ok => GOOD,
            Level::Notice => Style::new(),
            Level::Warning => WARNING,
            Level::Error => BAD,
        };
        paint(style, &level) + &text[level.len()..]
    };
    let lines: String = findings.iter().map(painted).collect();
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let of = |level, one: &str| match count(level) {
        1 => format!("1 {one}"),
        other => format!("{other} {one}s"),
    };
    let counts = [of(Level::Error, "error"), of(Level::Warning, "warning"), of(Level::Notice, "notice")].join(", ");
    let verdict = if starts { paint(GOOD, "the relay would start") } else { paint(BAD, "the relay would not start") };
    format!("{lines}{verdict}: {counts}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::style::plain;

    #[test]
    fn people_get_lines_and_a_verdict() {
        let finding = |level, text: &str, advice: Option<&str>| Finding {
            level,
            about: "ports",
            text: text.to_owned(),
            advice: advice.map(str::to_owned),
        };
        let findings = [finding(Level::Ok, "good", None), finding(Level::Error, "bad", Some("do this"))];
        assert_eq!(
            plain(&text(&findings, would_start(&findings))),
            "ok       ports: good\nerror    ports: bad\n         do this\n\
             the relay would not start: 1 error, 0 warnings, 0 notices\n"
        );
    }
}
