//! What the relay is told, from four layers: defaults, the file, the environment, the command line. The later ones win,
//! option by option.
//!
//! The options are those of `hairpin serve`, and nothing else knows them: each has a key and a variable of the same name,
//! and its values are looked at by the same parser wherever they come from. All that is wrong is told at once.

mod effective;
mod environment;
mod example;
mod file;
mod flags;
mod layer;
mod nearest;
mod options;
mod problem;
mod read;
mod reference;
mod reload;
mod secrets;
mod toml_text;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::FromArgMatches as _;

pub use self::effective::Setting;
pub(super) use self::effective::print as effective;
pub(super) use self::example::example;
pub use self::flags::Flags;
use self::layer::{Layer, Written};
use self::options::Opt;
pub use self::problem::{Place, Problem};
pub(super) use self::reference::reference;
pub use self::reload::{Reload, reload};
use crate::cli::serve::{Args, Contradiction};
use crate::config::Config;

/// Where the file is unless somebody says otherwise; there need not be one.
pub const DEFAULT_FILE: &str = "/etc/hairpin/hairpin.toml";

/// Where settings come from: what does not change while the process runs. The file, and those it names, are read anew
/// each time.
#[derive(Clone, Debug)]
pub struct Source {
    flags: Flags,
    variables: Variables,
}

/// Settings that are sound, and what else there is to say about them.
pub struct Loaded {
    /// What they mean.
    pub config: Config,
    /// What is no error, but should be known.
    pub warnings: Vec<String>,
    /// What they are, in the order of the help.
    pub settings: Vec<Setting>,
}

impl Source {
    /// The flags that were given, and the environment of the process.
    pub fn new(flags: Flags) -> Self {
        Self::with_environment(flags, std::env::vars_os())
    }

    /// The flags that were given, and an environment.
    pub fn with_environment(flags: Flags, environment: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self { flags, variables: Variables(environment::ours(environment)) }
    }

    /// Reads the file and puts the layers together. Nothing has changed when there are problems: there is no configuration,
    /// then.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let (flags, environment) = (self.flags.layer(), environment::layer(&self.variables.0));
        let (file, path) = file(&[&flags, &environment]);
        let mut layers = [flags, environment, file];
        layers.iter_mut().for_each(Layer::check);
        let mut chosen = Chosen::of(&layers, path);
        let matches = options::definition().try_get_matches_from(chosen.arguments()).map_err(unforeseen)?;
        match Args::from_arg_matches(&matches).map_err(unforeseen)?.into_config() {
            Ok(config) if chosen.problems.is_empty() => {
                let warnings = layers.into_iter().flat_map(|layer| layer.warnings).collect();
                return Ok(Loaded { config, warnings, settings: effective::settings(&chosen.values) });
            }
            Ok(_) => {}
            Err(contradictions) => chosen.tell(&contradictions),
        }
        Err(chosen.problems)
    }
}

/// Variables of the environment; some are secret.
#[derive(Clone)]
struct Variables(Vec<(String, OsString)>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The layer of the file that the layers above it name, or else of the default one if it exists; and which file that is.
fn file(above: &[&Layer]) -> (Layer, Option<Written>) {
    let option = options::find(options::CONFIG).expect("it is defined");
    let named = above.iter().find_map(|layer| layer.get(option)?.first()).cloned();
    let exists = || Path::new(DEFAULT_FILE).symlink_metadata().is_ok();
    let default = || exists().then(|| Written { text: DEFAULT_FILE.into(), place: Place::Default });
    match named.or_else(default) {
        Some(file) => {
            let path: Arc<Path> = PathBuf::from(&file.text).into();
            (file::layer(&path), Some(file))
        }
        None => (Layer::default(), None),
    }
}

/// Of every option the values of the highest layer that has any.
#[derive(Default)]
struct Chosen {
    values: BTreeMap<&'static str, Vec<Written>>,
    problems: Vec<Problem>,
    bad: Vec<&'static str>,
    /// Whether a layer could not be read.
    is_partial: bool,
}

impl Chosen {
    fn of(layers: &[Layer], file: Option<Written>) -> Self {
        let mut chosen = Self::default();
        for layer in layers {
            chosen.problems.extend(layer.problems.iter().cloned());
            chosen.bad.extend(&layer.bad);
        }
        chosen.is_partial = layers.iter().any(|layer| layer.is_unread);
        for option in options::all().iter().filter(|option| option.values_of().is_none()) {
            // What a file holds that an option names is of the same layer as the option itself.
            let is_said = |layer: &&Layer| {
                layer.get(option).is_some() || option.file().is_some_and(|file| layer.get(file).is_some())
            };
            if let Some(layer) = layers.iter().find(is_said) {
                chosen.take(option, layer);
            }
        }
        if let Some(file) = file {
            chosen.values.insert(options::CONFIG, vec![file]);
        }
        chosen
    }

    fn take(&mut self, option: &'static Opt, layer: &Layer) {
        let mut values = layer.get(option).unwrap_or_default().to_vec();
        let named = option.file().and_then(|file| Some((file, layer.get(file)?)));
        if let Some((file, named)) = named {
            for named in named {
                match secrets::read(option, file, named) {
                    Ok(lines) => values.extend(lines),
                    Err(problems) => {
                        self.problems.extend(problems);
                        self.bad.push(option.name());
                    }
                }
            }
            self.values.insert(file.name(), named.to_vec());
        }
        self.values.insert(option.name(), values);
    }

    /// All of them as a command line.
    fn arguments(&self) -> Vec<OsString> {
        let options = options::all().iter().filter_map(|option| Some((option, self.values.get(option.name())?)));
        options.flat_map(|(option, values)| values.iter().map(|value| option.argument(&value.text))).collect()
    }

    /// Complains of what does not go together, but for what is so only since something else is wrong: a listener that is
    /// missing because nobody can read it. Of a file that is no TOML nobody knows what it would have said.
    fn tell(&mut self, contradictions: &[Contradiction]) {
        let is_real = |contradiction: &&Contradiction| {
            !self.is_partial && contradiction.options().all(|option| !self.bad.contains(&option))
        };
        let place = |option: &str, at: Option<usize>| self.place(option, at);
        let real = contradictions.iter().filter(is_real);
        let told: Vec<_> = real.map(|contradiction| Problem::of_contradiction(contradiction, place)).collect();
        self.problems.extend(told);
    }

    /// Where an option was given, or one of its values.
    fn place(&self, option: &str, at: Option<usize>) -> Place {
        let values = self.values.get(option).map(Vec::as_slice).unwrap_or_default();
        let value = at.and_then(|at| values.get(at)).or(values.first());
        value.map_or(Place::Default, |value| value.place.clone())
    }
}

/// A bug, told as well as it can be.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unforeseen(error: clap::Error) -> Vec<Problem> {
    vec![Problem::unforeseen(&error)]
}
