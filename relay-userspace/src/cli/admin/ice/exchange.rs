//! `hairpin ice offer` and `hairpin ice answer`: session descriptions in, session descriptions out.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use hyper::Method;

use super::super::client::{self, Client};
use super::super::failed::Failed;
use super::super::human::clean;
use super::super::output::{note, print, print_json};
use super::super::place::given;
use super::terms::Terms;
use super::{session, side};
use crate::api::ice::{self, Exchange, Exchanged, Side, To};

/// More is no session description.
const LARGEST: u64 = 1 << 20;
/// What the files are.
pub(super) const WANTED: &str = "a session description";

/// Make a session of an offer, or take another one of it, and print the offer for the other side.
#[derive(Debug, clap::Args)]
pub(super) struct Offer {
    /// The session description, or - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// What the other side speaks: ice or plain [default: ice]
    #[arg(long, value_name = "ice|plain", value_parser = to)]
    to: Option<To>,

    /// A side without ICE is where it first sends from
    #[arg(long)]
    latch: bool,

    #[command(flatten)]
    terms: Terms,

    /// It is another offer of this session
    #[arg(long, value_name = "ID", value_parser = given, requires = "from",
        conflicts_with_all = ["to", "latch", "label", "families", "addresses", "packet_rate",
            "bit_rate", "setup", "consent", "paused", "idle"])]
    session: Option<String>,

    /// The leg whose side offers this time: a or b
    #[arg(long, value_name = "LEG", value_parser = side, requires = "session")]
    from: Option<Side>,
}

/// Take the answer to an offer, and print the answer for the side that has offered.
#[derive(Debug, clap::Args)]
pub(super) struct Answer {
    /// The session's id, as `list` shows it.
    #[arg(value_parser = given)]
    id: String,

    /// The session description, or - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The leg whose side answers: a or b
    #[arg(long, value_name = "LEG", value_parser = side)]
    from: Side,
}

impl Offer {
    pub(super) async fn run(&self, client: &Client, json: bool) -> Result<(), Failed> {
        let sdp = read(&self.file, WANTED)?;
        let answer = match (&self.session, self.from) {
            (Some(id), Some(from)) => {
                client.send(Method::POST, &format!("{}/offer", session(id)), &Exchange { from, sdp }).await?
            }
            _ => client.send(Method::POST, "/v1/ice/offer", &self.request(sdp)).await?,
        };
        tell(&answer, json)
    }

    fn request(&self, sdp: String) -> ice::Offer {
        let Self { to, latch, terms, .. } = self;
        ice::Offer {
            sdp,
            to: to.unwrap_or_default(),
            latch: *latch,
            label: terms.label.clone(),
            families: terms.families.clone(),
            addresses: terms.addresses.clone(),
            limits: terms.caps.limits(),
            timeouts: terms.waits.timeouts(),
        }
    }
}

impl Answer {
    pub(super) async fn run(&self, client: &Client, json: bool) -> Result<(), Failed> {
        let Self { id, file, from } = self;
        let exchange = Exchange { from: *from, sdp: read(file, WANTED)? };
        tell(&client.send(Method::POST, &format!("{}/answer", session(id)), &exchange).await?, json)
    }
}

/// Prints the description alone, so that it can go to the other side as it is.
fn tell(answer: &client::Answer, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(answer.text());
    }
    let Exchanged { session, sdp } = answer.read()?;
    note(&clean(&session.id));
    if io::stdout().is_terminal() {
        // Strangers have a part in it.
        return print(&sdp.lines().map(|line| clean(line) + "\n").collect::<String>());
    }
    print(&sdp)
}

/// The text of a file, or of standard input, which is to hold this.
pub(super) fn read(file: &Path, wanted: &str) -> Result<String, Failed> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().lock().take(LARGEST).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(LARGEST).read_to_string(&mut text))
    };
    match read {
        Ok(0) => Err(Failed::Usage(format!("{}: it is empty, {wanted} is needed", file.display()))),
        Ok(_) => Ok(text),
        Err(error) => Err(Failed::Usage(format!("{}: {error}", file.display()))),
    }
}

fn to(text: &str) -> Result<To, String> {
    match text {
        "ice" => Ok(To::Ice),
        "plain" => Ok(To::Plain),
        _ => Err("ice or plain is needed".to_owned()),
    }
}
