//! Reading a description: line by line, each level for itself, and in the end what sections have from the session.

use super::error::{MAX_CANDIDATES, MAX_LENGTH, MAX_LINE, MAX_MEDIA};
use super::line::{Connection, MediaLine, Rtcp, attribute, excerpt};
use super::{Description, Media, Problem, SdpError};
use crate::ice::{Candidate, Parameters};

/// Reads a description.
pub(super) fn description(text: &str) -> Result<Description, SdpError> {
    if text.len() > MAX_LENGTH {
        let line = 1 + text.bytes().take(MAX_LENGTH).filter(|byte| *byte == b'\n').count();
        return Err(SdpError { line, problem: Problem::Length(text.len()) });
    }
    let mut reader = Reader::default();
    let mut last = 1;
    for (line, number) in text.trim_end_matches(['\r', '\n']).split('\n').zip(1..) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        reader.take(number, line).map_err(|problem| SdpError { line: number, problem })?;
        last = number;
    }
    reader.finish(last)
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    session: Level,
    bundles: Vec<Vec<String>>,
    sections: Vec<Section>,
}

/// What session and sections may both say.
#[derive(Default)]
struct Level {
    lines: Vec<String>,
    connection: Option<Connection>,
    ufrag: Option<Credential>,
    pwd: Option<Credential>,
    ended: bool,
}

/// A username fragment or a password, and the line where it stands.
struct Credential {
    line: usize,
    text: String,
}

/// A media section, as far as it can be known without the session.
struct Section {
    /// Nothing of it is taken from the session yet.
    media: Media,
    level: Level,
    rtcp: Option<Rtcp>,
}

impl Reader {
    fn take(&mut self, number: usize, line: &str) -> Result<(), Problem> {
        check(number, line)?;
        if line.starts_with("m=") {
            let media = MediaLine::parse(line)?;
            if self.sections.len() == MAX_MEDIA {
                return Err(Problem::Media);
            }
            self.sections.push(Section::new(&media));
            return Ok(());
        }
        if let Some(section) = self.sections.last_mut() {
            return section.take(number, line);
        }
        if let Some(("group", value)) = attribute(line) {
            let mut words = value.split_ascii_whitespace();
            if words.next().is_some_and(|semantics| semantics.eq_ignore_ascii_case("BUNDLE")) {
                self.bundles.push(words.map(str::to_owned).collect());
            }
        }
        self.session.take(number, line)
    }

    fn finish(self, last: usize) -> Result<Description, SdpError> {
        let Self { session, mut bundles, sections } = self;
        if sections.is_empty() {
            return Err(SdpError { line: last, problem: Problem::NoMedia });
        }
        // An answer that has rejected all of a bundle keeps the group without a member.
        bundles.retain(|bundle| !bundle.is_empty());
        let media = sections.into_iter().map(|section| section.finish(&session)).collect::<Result<_, _>>()?;
        Ok(Description { session: session.lines, media, bundles })
    }
}

/// Whether this can be a line at all.
fn check(number: usize, line: &str) -> Result<(), Problem> {
    if line.len() > MAX_LINE {
        return Err(Problem::LineLength(line.len()));
    }
    // A carriage return may end a line for whoever reads the description next.
    if let Some(character) = line.chars().find(|character| matches!(character, '\0' | '\r')) {
        return Err(Problem::Character(character));
    }
    if number == 1 && line.trim_ascii_end() != "v=0" {
        return Err(Problem::Version);
    }
    match line.as_bytes() {
        [letter, b'=', ..] if letter.is_ascii_alphabetic() => Ok(()),
        _ => Err(Problem::Shape(excerpt(line))),
    }
}

impl Level {
    fn take(&mut self, line: usize, text: &str) -> Result<(), Problem> {
        self.lines.push(text.to_owned());
        if let Some(value) = text.strip_prefix("c=") {
            let connection = Connection::parse(value)?;
            // More of them are for layers that are sent to multicast addresses of their own.
            self.connection.get_or_insert(connection);
            return Ok(());
        }
        match attribute(text) {
            Some(("ice-ufrag", value)) => {
                Parameters::check_ufrag(value)?;
                self.ufrag.get_or_insert_with(|| Credential { line, text: value.to_owned() });
            }
            Some(("ice-pwd", value)) => {
                Parameters::check_pwd(value)?;
                self.pwd.get_or_insert_with(|| Credential { line, text: value.to_owned() });
            }
            Some(("end-of-candidates", _)) => self.ended = true,
            _ => {}
        }
        Ok(())
    }
}

impl Section {
    fn new(line: &MediaLine<'_>) -> Self {
        let media = Media {
            kind: line.kind.to_owned(),
            protocol: line.protocol.to_owned(),
            port: line.port,
            mid: None,
            address: None,
            rtcp: None,
            parameters: None,
            candidates: Vec::new(),
            ignored_candidates: 0,
            ended: false,
            before_port: line.before_port.to_owned(),
            after_port: line.after_port.to_owned(),
            lines: Vec::new(),
        };
        Self { media, level: Level::default(), rtcp: None }
    }

    fn take(&mut self, number: usize, line: &str) -> Result<(), Problem> {
        match attribute(line) {
            Some(("mid", value)) if self.media.mid.is_none() => self.media.mid = Some(value.to_owned()),
            Some(("rtcp", value)) => {
                let rtcp = Rtcp::parse(value)?;
                self.rtcp.get_or_insert(rtcp);
            }
            Some(("candidate", _)) => {
                if self.media.candidates.len() + self.media.ignored_candidates == MAX_CANDIDATES {
                    return Err(Problem::Candidates);
                }
                // The others may do, and so may those that checks find.
                match line.parse::<Candidate>() {
                    Ok(candidate) => self.media.candidates.push(candidate),
                    Err(_) => self.media.ignored_candidates += 1,
                }
            }
            _ => {}
        }
        self.level.take(number, line)
    }

    fn finish(self, session: &Level) -> Result<Media, SdpError> {
        let Self { mut media, level, rtcp } = self;
        let connection = level.connection.or(session.connection).unwrap_or_default();
        media.address = connection.at(media.port);
        if media.is_rtp() {
            media.rtcp = match rtcp {
                Some(rtcp) => rtcp.connection.unwrap_or(connection).at(rtcp.port),
                None => media.address.and_then(|rtp| connection.at(rtp.port().checked_add(1)?)),
            };
        }
        media.parameters =
            parameters(level.ufrag.as_ref().or(session.ufrag.as_ref()), level.pwd.as_ref().or(session.pwd.as_ref()))?;
        media.ended = level.ended || session.ended;
        media.lines = level.lines;
        Ok(media)
    }
}

fn parameters(ufrag: Option<&Credential>, pwd: Option<&Credential>) -> Result<Option<Parameters>, SdpError> {
    let alone = |credential: &Credential, present, missing| {
        Err(SdpError { line: credential.line, problem: Problem::Alone { present, missing } })
    };
    match (ufrag, pwd) {
        (Some(ufrag), Some(pwd)) => Ok(Some(Parameters { ufrag: ufrag.text.clone(), pwd: pwd.text.clone() })),
        (Some(ufrag), None) => alone(ufrag, "ice-ufrag", "ice-pwd"),
        (None, Some(pwd)) => alone(pwd, "ice-pwd", "ice-ufrag"),
        (None, None) => Ok(None),
    }
}
