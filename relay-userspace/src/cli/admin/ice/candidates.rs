//! `hairpin ice candidates`: candidates of an agent that have come later.

use std::path::Path;

use clap::ArgGroup;

use super::super::failed::Failed;
use super::super::place::given;
use super::exchange::read;
use super::side;
use crate::api::ice::{Candidates, Side};

/// Add candidates of an ICE agent that a leg knows already (trickle ICE).
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").args(["candidates", "end"]).required(true).multiple(true))]
pub(super) struct Args {
    /// The session's id, as `list` shows it.
    #[arg(value_parser = given)]
    pub(super) id: String,

    /// A candidate, such as "candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host", or - for those in the lines of standard
    /// input.
    #[arg(value_name = "CANDIDATE")]
    candidates: Vec<String>,

    /// The leg whose side they are of: a or b
    #[arg(long, value_name = "LEG", value_parser = side)]
    pub(super) leg: Side,

    /// The stream that they are of [default: the first]
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,

    /// There will be no more
    #[arg(long)]
    end: bool,
}

impl Args {
    pub(super) fn request(&self) -> Result<Candidates, Failed> {
        let mut candidates = Vec::new();
        for candidate in &self.candidates {
            if candidate == "-" {
                candidates.extend(lines(&read(Path::new(candidate), "a candidate")?));
            } else {
                candidates.push(candidate.clone());
            }
        }
        Ok(Candidates { candidates, stream: self.stream.clone(), end_of_candidates: self.end })
    }
}

/// The lines in which something stands: an empty one is not meant as the end, though to a browser an empty candidate is.
fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_say_nothing() {
        let text = "\r\na=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n\n end-of-candidates\n";
        let expected = ["a=candidate:1 1 UDP 1 192.0.2.1 9 typ host", "end-of-candidates"];
        assert_eq!(lines(text).collect::<Vec<_>>(), expected);
    }
}
