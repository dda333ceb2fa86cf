//! Files with a realm each: options of the same definition, but only those that a realm has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::FromArgMatches as _;

use super::problem::Problem;
use super::{Chosen, file, options, unforeseen};
use crate::cli::serve::{Args, OF_REALM, RealmFile};

impl Chosen {
    /// What the files say, with what should be known of them. What is wrong joins what is wrong already.
    pub(super) fn realms(&mut self, paths: &[PathBuf]) -> (Vec<RealmFile>, Vec<String>) {
        let (mut realms, mut warnings) = (Vec::new(), Vec::new());
        for path in paths {
            match read(&path.as_path().into()) {
                Ok((realm, told)) => {
                    realms.push(realm);
                    warnings.extend(told);
                }
                Err(problems) => {
                    self.problems.extend(problems);
                    // What is said of realms together may not be so with this one.
                    self.bad.push("realm-file");
                }
            }
        }
        (realms, warnings)
    }
}

/// The realm of a file, its listeners, and what should be known of it.
fn read(path: &Arc<Path>) -> Result<(RealmFile, Vec<String>), Vec<Problem>> {
    let mut layer = file::layer(path);
    layer.check();
    for option in options::keys().filter(|option| !OF_REALM.contains(&option.name())) {
        if let Some(written) = layer.get(option).and_then(<[_]>::first) {
            let what = "is no option of a realm: say it in the main file";
            layer.problems.push(Problem::misplaced(option, &written.place.clone(), what));
        }
    }
    let realm = options::find("realm").expect("it is defined");
    if layer.get(realm).is_none() && !layer.is_unread {
        layer.problems.push(Problem::of_file(path, "it does not say which realm it is about: realm is missing"));
    }
    let warnings = std::mem::take(&mut layer.warnings);
    let mut chosen = Chosen::of(&[layer], None);
    let matches = options::definition().try_get_matches_from(chosen.arguments()).map_err(unforeseen)?;
    match Args::from_arg_matches(&matches).map_err(unforeseen)?.into_realm() {
        Ok(realm) if chosen.problems.is_empty() => return Ok((realm, warnings)),
        Ok(_) => {}
        Err(contradictions) => chosen.tell(&contradictions),
    }
    Err(Problem::first_of(chosen.problems))
}
