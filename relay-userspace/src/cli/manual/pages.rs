//! The pages: what the definition of the command line says, and what it cannot say.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::sections::{self, Item};
use crate::cli::settings;

const MANUAL: &str = "Hairpin";
const SOURCE: &str = concat!("hairpin ", env!("CARGO_PKG_VERSION"));

/// Names of files, and texts.
pub(super) fn all(command: Command) -> Vec<(String, String)> {
    // Help is an option of every command; the pages are what the command `help` would show.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&mut pages, &command, &[]);
    pages.push(("hairpin.toml.5".to_owned(), file()));
    pages
}

/// Adds the page of a command, and those of its own commands; `above` are the commands that it is one of.
fn add(pages: &mut Vec<(String, String)>, command: &Command, above: &[&str]) {
    let name = page_name(command);
    pages.push((format!("{name}.1"), page(command, above)));
    let above = [above, &[&name]].concat();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add(pages, inner, &above);
    }
}

/// `hairpin-ice-show`, for `hairpin ice show`.
fn page_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-")
}

fn page(command: &Command, above: &[&str]) -> String {
    let name = page_name(command);
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let has_commands = command.get_subcommands().next().is_some();
    // The one line of NAME has no room for a full stop.
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned();
    let man = Man::new(command.clone().override_usage(usage))
        .title(name.to_uppercase())
        .section("1")
        .source(SOURCE)
        .manual(MANUAL);

    let mut page = title(&name, "1");
    page.push_str(&section("NAME", |roff| {
        roff.text([roman(format!("{name} - {}", in_a_sentence(&about)))]);
    }));
    page.push_str(&rendered(|out| man.render_synopsis_section(out)));
    page.push_str(&section("DESCRIPTION", |roff| {
        let long = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        let stop = if long.ends_with('.') { "" } else { "." };
        roff.text([roman(format!("{long}{stop}"))]);
        roff.extend(sections::description(&name).iter().map(|text| paragraph(text, true)));
    }));
    page.push_str(&options(&rendered(|out| man.render_options_section(out))));
    if has_commands {
        page.push_str(&rendered(|out| man.render_subcommands_section(out)).replace(".SH SUBCOMMANDS", ".SH COMMANDS"));
    }
    for (heading, items) in sections::of(&name) {
        page.push_str(&items_of(heading, items));
    }
    let parents = above.iter().map(|above| format!("{above}(1)"));
    page.push_str(&see_also(parents.chain(sections::see_also(&name).iter().map(|page| (*page).to_owned()))));
    page
}

/// The page of the configuration file.
fn file() -> String {
    let mut page = title("hairpin.toml", "5");
    page.push_str(&section("NAME", |roff| {
        roff.text([roman("hairpin.toml - what the Hairpin TURN relay is told")]);
    }));
    page.push_str(&section("SYNOPSIS", |roff| {
        roff.text([bold(settings::DEFAULT_FILE)]);
    }));
    page.push_str(&section("DESCRIPTION", |roff| {
        let mut paragraphs = sections::FILE.iter();
        roff.extend(paragraphs.next().map(|text| paragraph(text, false)));
        roff.extend(paragraphs.map(|text| paragraph(text, true)));
    }));
    page.push_str(&section("KEYS", |roff| {
        let mut heading = "";
        for key in settings::keys() {
            if key.heading != heading {
                heading = key.heading;
                roff.control("SS", [heading]);
            }
            roff.control("TP", []);
            roff.text([bold(key.name), roman(format!(" = {}", key.example))]);
            roff.text([roman(key.meaning)]);
        }
    }));
    page.push_str(&items_of("FILES", sections::FILES));
    page.push_str(&see_also(["hairpin(1)", "hairpin-config(1)", "hairpin-serve(1)"].map(str::to_owned).into_iter()));
    page
}

fn title(name: &str, section: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TH", [name.to_uppercase().as_str(), section, sections::DATE, SOURCE, MANUAL]);
    roff.render()
}

fn section(heading: &str, fill: impl FnOnce(&mut Roff)) -> String {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    fill(&mut roff);
    // Each piece would define the quotes once more.
    without_preamble(&roff.render())
}

fn paragraph(text: &str, is_next: bool) -> Roff {
    let mut roff = Roff::new();
    if is_next {
        roff.control("PP", []);
    }
    roff.text([roman(text)]);
    roff
}

fn items_of(heading: &str, items: &[Item]) -> String {
    section(heading, |roff| {
        for (name, meaning) in items {
            roff.control("TP", []);
            roff.text([bold(*name)]);
            roff.text([roman(*meaning)]);
        }
    })
}

fn see_also(pages: impl Iterator<Item = String>) -> String {
    let mut pages: Vec<_> = pages.collect();
    pages.sort();
    pages.dedup();
    section("SEE ALSO", |roff| {
        let last = pages.len().saturating_sub(1);
        for (place, page) in pages.iter().enumerate() {
            let (name, number) = page.split_once('(').unwrap_or((page, ""));
            let comma = if place == last { "" } else { "," };
            roff.control("BR", [name, &format!("({number}{comma}")]);
        }
    })
}

fn rendered(render: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    render(&mut text).expect("memory takes whatever is written");
    without_preamble(&String::from_utf8_lossy(&text))
}

/// Without the definition of quotes that stands at the top of the page already.
fn without_preamble(text: &str) -> String {
    let is_preamble = |line: &str| line.starts_with(".ie ") || line.starts_with(".el ");
    text.split_inclusive('\n').filter(|line| !is_preamble(line)).collect()
}

/// One section with all options: what groups them is below it.
fn options(text: &str) -> String {
    // Two breaks around a blank line are one blank line.
    let text = text.replace("\n.br\n\n.br\n", "\n.sp\n");
    let inner = text.lines().filter(|line| *line != ".SH OPTIONS").map(|line| match line.strip_prefix(".SH ") {
        Some(heading) => format!(".SS {}\n", capitalised(heading)),
        None => format!("{line}\n"),
    });
    std::iter::once(".SH OPTIONS\n".to_owned()).chain(inner).collect()
}

/// `Credentials for applications`, of a heading in capital letters.
fn capitalised(heading: &str) -> String {
    let mut characters = heading.chars();
    let first = characters.find(|first| *first != '"').map(String::from).unwrap_or_default();
    let rest = characters.as_str().trim_end_matches('"').to_lowercase();
    let quote = if heading.starts_with('"') { "\"" } else { "" };
    format!("{quote}{first}{rest}{quote}")
}

/// As it stands behind a dash: `run the relay`.
fn in_a_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return String::new() };
    // An abbreviation stays one.
    let is_word = !characters.as_str().starts_with(char::is_uppercase);
    let first = if is_word { first.to_lowercase().to_string() } else { first.to_string() };
    first + characters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of<'p>(pages: &'p [(String, String)], name: &str) -> &'p str {
        &pages.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn every_command_has_a_page_and_every_page_says_what_it_must() {
        let pages = all(crate::cli::command());
        for inner in crate::cli::command().get_subcommands() {
            page_of(&pages, &format!("hairpin-{}.1", inner.get_name()));
        }
        page_of(&pages, "hairpin-ice-show.1");
        for (name, text) in pages.iter().filter(|(name, _)| name.ends_with(".1")) {
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
                assert!(text.contains(&format!("\n.SH {heading}\n")), "{name} has no {heading}:\n{text}");
            }
            assert_eq!(text.matches(".TH ").count(), 1, "{name}");
        }
        let serve = page_of(&pages, "hairpin-serve.1");
        for heading in ["SIGNALS", "FILES"] {
            assert!(serve.contains(&format!("\n.SH {heading}\n")), "{heading}");
        }
    }

    #[test]
    fn every_key_is_in_the_page_of_the_file() {
        let pages = all(crate::cli::command());
        let text = page_of(&pages, "hairpin.toml.5");
        for name in settings::names().filter(|name| *name != "config") {
            assert!(text.contains(&format!("\\fB{}\\fR = ", name.replace('-', "\\-"))), "{name}");
        }
    }
}
