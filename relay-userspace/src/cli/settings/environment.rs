//! The environment: `HAIRPIN_` and the name of the option.

use std::ffi::{OsStr, OsString};

use super::layer::{Layer, Written};
use super::nearest::nearest;
use super::options;
use super::problem::{Place, Problem};

/// What all variables begin with.
const PREFIX: &str = "HAIRPIN_";

/// The variables of an environment that are ours.
pub(super) fn ours(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, OsString)> {
    let named = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named.filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

/// What they say. One that is empty says nothing: compose files and units leave them so.
pub(super) fn layer(variables: &[(String, OsString)]) -> Layer {
    let mut layer = Layer::default();
    for (name, text) in variables.iter().filter(|(_, text)| !text.is_empty()) {
        let written = |text: &OsStr| Written { text: text.to_owned(), place: Place::Variable };
        let Some(option) = options::all().iter().find(|option| option.variable() == name) else {
            // Others have variables that begin like ours, such as the links of Kubernetes: they are none of our business.
            let known = options::all().iter().map(options::Opt::variable);
            if let Some(meant) = nearest(name, known, 2) {
                layer.warnings.push(format!("{name} is no variable of the relay; is {meant} meant?"));
            }
            continue;
        };
        if !option.is_list() {
            layer.set(option.name(), vec![written(text)]);
            continue;
        }
        match text.to_str() {
            // Passwords may hold spaces.
            Some(text) if option.is_secret() => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                layer.set(option.name(), lines.map(|line| written(line.as_ref())).collect());
            }
            Some(text) => {
                layer.set(option.name(), text.split_whitespace().map(|word| written(word.as_ref())).collect());
            }
            None => {
                layer.problems.push(Problem::of_value(option, &Place::Variable, "...", "it is not UTF-8"));
                layer.bad.push(option.name());
            }
        }
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, text: &str) -> Layer {
        layer(&[(name.to_owned(), text.into())])
    }

    fn values(layer: &Layer, option: &str) -> Option<Vec<String>> {
        let values = layer.get(options::find(option).unwrap())?;
        Some(values.iter().map(|value| value.text.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn lists_are_separated_by_spaces_and_secrets_by_lines() {
        let layer = said("HAIRPIN_ALLOW_PEER", " 10.0.0.0/8\t::/0 \n 192.0.2.1");
        assert_eq!(values(&layer, "allow-peer").unwrap(), ["10.0.0.0/8", "::/0", "192.0.2.1"]);
        let layer = said("HAIRPIN_USER", "alice:a b\r\n\n  bob:c\n");
        assert_eq!(values(&layer, "user").unwrap(), ["alice:a b", "bob:c"]);
        assert_eq!(values(&said("HAIRPIN_REALM", "a b"), "realm").unwrap(), ["a b"]);
    }

    #[test]
    fn an_empty_variable_says_nothing() {
        assert_eq!(values(&said("HAIRPIN_REALM", ""), "realm"), None);
        assert_eq!(values(&said("HAIRPIN_USER", ""), "user"), None);
    }

    #[test]
    fn a_variable_that_is_nearly_one_of_ours_is_warned_of_and_others_are_not() {
        assert_eq!(
            said("HAIRPIN_SHARD", "1").warnings,
            ["HAIRPIN_SHARD is no variable of the relay; is HAIRPIN_SHARDS meant?"]
        );
        for other in ["HAIRPIN_SERVICE_HOST", "HAIRPIN_PORT_3478_UDP", "HAIRPIN_ADMIN_URL"] {
            assert!(said(other, "1").warnings.is_empty(), "{other}");
        }
    }
}
