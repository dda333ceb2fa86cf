//! Every link from a page to something in the repository leads somewhere, and so does every path that is named.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use hairpin_tests::markdown::{Page, pages, repository};

use crate::commands::is_of_the_manual;

#[test]
fn links_within_the_repository_resolve() {
    let pages = pages();
    assert!(pages.len() > 15, "only {} pages were found", pages.len());
    let complaints = complaints(&pages);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_link_to_nothing_is_told() {
    let page = |text| Page::parse(Path::new("docs/made-up.md"), text);
    let told = |text| complaints(&[page(text)]).len();
    assert_eq!(told("# Here\n[a](#here) [b](../README.md) [c](made-up.md#here) [d](https://example.org/#x)"), 0);
    assert_eq!(told("# Here\n[a](#there) [b](../nowhere.md) [c](made-up.md#there) [d](../../out.md)"), 4);
}

#[test]
fn paths_that_the_manual_names_exist() {
    let complaints: Vec<_> =
        pages().iter().filter(|page| is_of_the_manual(&page.path)).flat_map(unknown_paths).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_made_up_path_is_told() {
    let text = "`deploy/run.sh --realm x` `tests/nothing.rs`\n\n```sh\nsudo deploy/walk.sh\nls src/lib.rs\n```\n";
    assert_eq!(unknown_paths(&Page::parse(Path::new("docs/made-up.md"), text)).len(), 2);
}

/// What a page names of `deploy`, `docs` and `tests`, in commands and between back-ticks, and is not there.
fn unknown_paths(page: &Page) -> Vec<String> {
    let blocks = page.blocks.iter().filter(|block| block.info.starts_with("sh"));
    let texts =
        blocks.map(|block| (block.line, &block.text)).chain(page.spans.iter().map(|span| (span.line, &span.text)));
    let words = texts.flat_map(|(line, text)| text.split_whitespace().map(move |word| (line, word)));
    let paths = words.filter(|(_, word)| ["deploy/", "docs/", "tests/"].iter().any(|folder| word.starts_with(folder)));
    let unknown = paths.filter(|(_, path)| !repository().join(path).exists());
    unknown.map(|(line, path)| format!("{}:{line}: there is no {path}", page.path.display())).collect()
}

fn complaints(pages: &[Page]) -> Vec<String> {
    let anchors: BTreeMap<&Path, &[String]> = pages.iter().map(|page| (&*page.path, &*page.anchors)).collect();
    let mut complaints = Vec::new();
    for page in pages {
        for link in page.links.iter().filter(|link| !link.target.contains(':')) {
            let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
            let target = if file.is_empty() { Some(page.path.clone()) } else { resolve(&page.path, file) };
            let target = target.filter(|target| anchors.contains_key(&**target) || repository().join(target).exists());
            let has_anchor =
                |target: &PathBuf| anchors.get(&**target).is_none_or(|known| known.iter().any(|known| known == anchor));
            if target.is_none_or(|target| !anchor.is_empty() && !has_anchor(&target)) {
                complaints.push(format!("{}:{}: {} leads nowhere", page.path.display(), link.line, link.target));
            }
        }
    }
    complaints
}

/// The path of what a page names, from the root; `None` when that is outside.
fn resolve(page: &Path, file: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            _ => return None,
        }
    }
    Some(path)
}
