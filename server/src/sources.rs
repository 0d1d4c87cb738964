//! Where the value of each setting came from: a flag, a variable of the environment, or the default.
//!
//! A complaint about a value that stands in a unit file or in a container's environment must name the variable: the flag is nowhere to be found
//! there. Read next: `args.rs`, which makes the list, and `check.rs`, which prints it.

use std::ffi::{OsStr, OsString};

use clap::Command;

/// Where a value came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nothing sets it.
    #[default]
    Default,
    /// The command line.
    Flag,
    /// The environment. An empty variable counts as one that is not set.
    Variable,
}

/// The source of each setting that a flag or a variable sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<(String, String, Source)>);

impl Sources {
    /// Looks for each flag of the command among the arguments, and for its variable in the environment.
    #[must_use]
    pub fn of(command: &Command, args: &[OsString], variable: impl Fn(&OsStr) -> Option<OsString>) -> Sources {
        let found = command.get_arguments().filter_map(|arg| {
            let (flag, name) = (format!("--{}", arg.get_long()?), arg.get_env()?);
            let is_flag = |arg: &OsString| {
                arg.to_str().is_some_and(|arg| arg == flag || arg.strip_prefix(&flag).is_some_and(|rest| rest.starts_with('=')))
            };
            let source = if args.iter().any(is_flag) { Source::Flag } else { Source::Variable };
            let is_set = source == Source::Flag || variable(name).is_some_and(|value| !value.is_empty());
            is_set.then(|| (flag, name.to_string_lossy().into_owned(), source))
        });
        Sources(found.collect())
    }

    /// The source of this flag's value.
    #[must_use]
    pub fn get(&self, flag: &str) -> Source {
        self.0.iter().find(|(known, ..)| known == flag).map_or(Source::Default, |(.., source)| *source)
    }

    /// The complaint, and the variables that set the flags which it names.
    #[must_use]
    pub fn named(&self, complaint: &str) -> String {
        let is_in = |flag: &str| {
            complaint
                .match_indices(flag)
                .any(|(at, _)| !complaint[at + flag.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
        };
        let variables = self.0.iter().filter(|(flag, _, source)| *source == Source::Variable && is_in(flag));
        let variables: Vec<&str> = variables.map(|(_, variable, _)| variable.as_str()).collect();
        if variables.is_empty() { complaint.to_owned() } else { format!("{complaint} (set by the variable {})", variables.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Args;

    fn of(args: &[&str], variables: &[(&str, &str)]) -> Sources {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Sources::of(&Args::command(), &args, |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn a_flag_goes_before_its_variable_and_an_empty_variable_is_none() {
        let variables = [("SERVER_LOOPS", "2"), ("SERVER_WORKERS", "3"), ("SERVER_LISTEN", "")];
        let sources = of(&["server", "--loops", "1", "--idle-timeout=5s"], &variables);
        for (flag, source) in [
            ("--loops", Source::Flag),
            ("--idle-timeout", Source::Flag),
            ("--workers", Source::Variable),
            ("--listen", Source::Default),
            ("--admin", Source::Default),
        ] {
            assert_eq!(sources.get(flag), source, "{flag}");
        }
    }

    #[test]
    fn a_complaint_names_the_variables_of_the_flags_in_it() {
        let sources = of(&["server", "--loops", "1"], &[("SERVER_BUFFER_MEMORY_MAX", "64KiB"), ("SERVER_LOOPS", "2")]);
        let complaint = "--buffer-memory-max is 64KiB; at least 256KiB are needed: 4 buffers of --buffer-bytes-max for each of --loops";
        assert_eq!(sources.named(complaint), format!("{complaint} (set by the variable SERVER_BUFFER_MEMORY_MAX)"));
        for other in ["--loops is 1", "--buffer-memory is 1", "--buffer-memory-max-of is 1", "a port is in use"] {
            assert_eq!(sources.named(other), other);
        }
    }
}
