//! `hairpin config --reference`: all options in tables of Markdown.

use std::fmt::Write as _;

use super::options::{self, Kind, Opt};
use super::reload::{Reload, reload};

const INTRODUCTION: &str = "\
# Options of `hairpin serve`

<!-- Made by `hairpin config --reference`, from the definition of the command line. -->

Each option can be given in four places; the first one that says something of it holds:

1. on the command line: `--relay-ports 50000-59999`, `--tcp-relay` or `--tcp-relay=false`;
2. in the environment: `HAIRPIN_RELAY_PORTS=50000-59999`. A variable that is empty says nothing;
3. in a file of TOML: `relay-ports = \"50000-59999\"`. It is the one that `--config` or `HAIRPIN_CONFIG` names, else
   `/etc/hairpin/hairpin.toml` if that exists. Keys stand one beside the other, without sections;
4. nowhere: then the default holds.

An option marked `*` may be repeated. Its flag is then given several times; its variable holds the values with spaces
between them, of secrets one a line; its key has a list (`listen = [\"udp:0.0.0.0:3478\", \"tcp:0.0.0.0:3478\"]`). The values
of one place replace those of the places below it; none are added.

Secrets can stand in files of their own: what `user-file`, `auth-secret-file`, `admin-token-file` and
`credentials-token-file` name holds one value a line; blank lines and those that begin with `#` are passed over. A file that
any user of the host can read is refused. A secret and its file count as one option: given in one place, both hold.

All that is wrong is told at once, with file and line, and ends the start with exit code 2. `hairpin config --example`
prints a file with every key ([deploy/hairpin.toml](../deploy/hairpin.toml)); `hairpin config --show` says what holds, and
where it comes from.

SIGHUP and `hairpin reload` read file and secrets anew. What changes an option marked *live* is in force at once; the
others wait for the next start.
";

/// The document.
pub(in crate::cli) fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    let mut heading = "";
    for option in options::all() {
        if option.heading() != heading {
            heading = option.heading();
            let _ = write!(
                text,
                "\n## {heading}\n\n| key | flag | variable | default | reload | meaning |\n|---|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(text, "{}", row(option));
    }
    text
}

fn row(option: &Opt) -> String {
    let name = option.name();
    let key = if name == options::CONFIG { String::new() } else { format!("`{name}`") };
    let many = if option.is_list() { " *" } else { "" };
    let default = match option.default() {
        Some(default) if option.has_value() => format!("`{default}`"),
        Some(default) => default.to_owned(),
        None => String::new(),
    };
    let reload = match reload(name) {
        Some(Reload::Live) => "live",
        _ => "restart",
    };
    let mut meaning = option.help().to_owned();
    for (choice, help) in option.choices() {
        let help = help.map(|help| format!(": {help}")).unwrap_or_default();
        let _ = write!(meaning, "; `{choice}`{help}");
    }
    if option.kind() == Kind::Switch {
        meaning.push_str(" (`true` or `false`)");
    }
    let flag = format!("`{}`{many}", option.usage());
    let cells = [key, flag, format!("`{}`", option.variable()), default, reload.to_owned(), meaning];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}
