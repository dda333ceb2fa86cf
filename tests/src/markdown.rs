//! Pages of Markdown, as far as the tests of the manual have to understand them: headings, links, code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Where it is, from the root of the repository.
    pub path: PathBuf,
    /// What stands between fences.
    pub blocks: Vec<Block>,
    /// What its headings are called in links.
    pub anchors: Vec<String>,
    /// Where its links lead.
    pub links: Vec<Link>,
    /// What stands in back-ticks.
    pub spans: Vec<Span>,
    /// Lines that are code by their indentation alone.
    pub indented: Vec<usize>,
}

/// What stands between two fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the first fence; the first of a page is 1.
    pub line: usize,
    /// What stands behind the first fence.
    pub info: String,
    /// The lines between.
    pub text: String,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its line.
    pub line: usize,
    /// Where it leads.
    pub target: String,
}

/// Something in back-ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The line where it begins.
    pub line: usize,
    /// What it is.
    pub text: String,
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above")
}

/// Every page of the repository.
pub fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    collect(repository(), &mut paths);
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).expect("a folder of ours").flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            // What is built or downloaded has pages of others in it.
            if !name.starts_with('.') && name != "target" && name != "node_modules" && name != "corpus" {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path.strip_prefix(repository()).expect("it is inside").to_owned());
        }
    }
}

impl Page {
    /// Reads the page at a path from the root of the repository.
    pub fn read(path: &Path) -> Self {
        let whole = repository().join(path);
        let text = fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{}: {error}", whole.display()));
        Self::parse(path, &text)
    }

    /// Takes a page apart.
    pub fn parse(path: &Path, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            blocks: Vec::new(),
            anchors: Vec::new(),
            links: Vec::new(),
            spans: Vec::new(),
            indented: Vec::new(),
        };
        let mut seen = BTreeMap::new();
        let mut fence: Option<usize> = None;
        let mut is_after_blank = true;
        let mut prose = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            let indent = line.len() - line.trim_start().len();
            let mut kept = "";
            match (fence, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    fence = Some(indent);
                    page.blocks.push(Block { line: number, info: info.trim().to_owned(), text: String::new() });
                }
                (Some(_), Some("")) => fence = None,
                (Some(indent), _) => {
                    let block = page.blocks.last_mut().expect("a fence begins one");
                    block.text.push_str(line.get(indent..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {
                    if let Some(heading) = heading(line) {
                        page.anchors.push(anchor(heading, &mut seen));
                    }
                    if indent >= 4 && is_after_blank && !line.trim().is_empty() {
                        page.indented.push(number);
                    }
                    kept = line;
                }
            }
            is_after_blank = line.trim().is_empty();
            prose.push_str(kept);
            prose.push('\n');
        }
        page.read_prose(&prose);
        page
    }

    /// Finds spans of code, and links in what is left. Either may go on in the next line, but not in the next paragraph.
    fn read_prose(&mut self, prose: &str) {
        let mut line = 1;
        for paragraph in prose.split_inclusive("\n\n") {
            let mut rest = paragraph;
            let mut words = String::new();
            while let Some((before, after)) = rest.split_once('`') {
                words.push_str(before);
                let Some((span, after)) = after.split_once('`') else { break };
                let at = line + words.matches('\n').count();
                self.spans.push(Span { line: at, text: span.split_whitespace().collect::<Vec<_>>().join(" ") });
                // Stands for the span, which is no link but may be the text of one.
                words.extend(span.chars().filter(|c| *c == '\n'));
                rest = after;
            }
            words.push_str(rest);
            let mut from = 0;
            while let Some(at) = words[from..].find("](").map(|at| from + at + 2) {
                let target = words[at..].split([')', ' ', '\n']).next().unwrap_or_default();
                self.links.push(Link { line: line + words[..at].matches('\n').count(), target: target.to_owned() });
                from = at;
            }
            line += paragraph.matches('\n').count();
        }
    }
}

fn heading(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches('#');
    (rest.len() < line.len()).then(|| rest.strip_prefix(' ')).flatten()
}

/// What GitHub makes of a heading.
fn anchor(heading: &str, seen: &mut BTreeMap<String, u32>) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    let name: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
    let before = seen.entry(name.clone()).or_default();
    *before += 1;
    if *before == 1 { name } else { format!("{name}-{}", *before - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let text = "# Two `words`, one\n\nSee [that](other.md#part) and `[no](link)`.\n\n\
                    ```sh no_run: needs a cluster\nhairpin serve\n```\n\n    indented\n\n# Two words, one\n\
                    - item\n\n  ```text\n  inner\n    more\n  ```\n\n`--a\n  b` [x](y.md)\n";
        let page = Page::parse(Path::new("a.md"), text);
        assert_eq!(page.anchors, ["two-words-one", "two-words-one-1"]);
        let links: Vec<_> = page.links.iter().map(|link| (link.line, link.target.as_str())).collect();
        assert_eq!(links, [(3, "other.md#part"), (20, "y.md")]);
        assert_eq!(page.indented, [9]);
        let blocks: Vec<_> = page.blocks.iter().map(|block| (block.line, &*block.info, &*block.text)).collect();
        assert_eq!(blocks, [(5, "sh no_run: needs a cluster", "hairpin serve\n"), (14, "text", "inner\n  more\n")]);
        let spans: Vec<_> = page.spans.iter().map(|span| (span.line, span.text.as_str())).collect();
        assert_eq!(spans, [(1, "words"), (3, "[no](link)"), (19, "--a b")]);
    }
}
