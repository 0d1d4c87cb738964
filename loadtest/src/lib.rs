//! An open-loop load generator, and the scenarios that reproduce the failures of an event-loop server.
//!
//! Reading order:
//! 1. [`args`], [`run`]: the command line; from arguments to an exit code;
//! 2. [`plan`], [`schedule`]: what to send, and when each request is due;
//! 3. [`class_load`], [`client`], [`response`]: the open loop, its connections on the reactor, and their responses;
//! 4. [`truth`], [`generator`], [`histogram`], [`truth::verdict`]: stamps and bounds, threads, three clocks, and whether the result can be trusted;
//! 5. [`results_by_name`], [`condition`], [`report`], [`json`], [`progress`], [`output`]: figures and conditions on them, the result for people and for programs, and where it is written;
//! 6. [`scenario`], [`side`], [`contrast`], [`contrast_text`], [`scenarios`], [`child`]: the same load twice, once against a mistake;
//! 7. [`socket_client`], [`impatient_clients`], [`kernel_sockets`], [`server_metrics`]: clients on plain sockets, the counts of the kernel, and the metrics of the server, for figures that are not latencies.

pub mod args;
pub mod child;
pub mod class_load;
pub mod client;
pub mod condition;
pub mod connection_pool;
pub mod contrast;
pub mod contrast_text;
pub mod errors;
pub mod exit;
pub mod generator;
pub mod histogram;
pub mod host;
pub mod impatient_clients;
pub mod interrupt;
pub mod json;
pub mod kernel_sockets;
pub mod measure;
pub mod mistakes;
pub mod output;
pub mod plan;
pub mod progress;
pub mod report;
pub mod response;
pub mod results_by_name;
pub mod run;
pub mod scenario;
pub mod scenario_command;
pub mod scenarios;
pub mod schedule;
pub mod series;
pub mod server_metrics;
pub mod side;
pub mod socket_client;
pub mod start;
pub mod sys;
pub mod target;
pub mod truth;
pub mod units;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use output::note;

/// The whole program: arguments in (the program's name first), exit code out.
pub fn cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|word| word == "serve") {
        // Hidden: the server under test, a process of its own. Its arguments are the server's.
        args.remove(1);
        return server::demo::cli(args);
    }
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).try_init(); // A caller may have its own.
    let command: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if is_run_without_its_name(&command[1.min(command.len())..]) {
        args.insert(1, "run".into());
    }
    if args.len() < 2 {
        // Parsed like any other command, so that LOADTEST_… variables hold.
        args.truncate(0);
        args.extend(["loadtest", "scenario", "run", "all"].map(OsString::from));
    }
    let parsed = match Cli::try_parse_from(&args) {
        Ok(parsed) => parsed,
        Err(e) => return refuse(&e, program_name(&command)),
    };
    let ended = match &parsed.command {
        Command::Run(args) => run::run(args, &command).map_err(|e| (exit::FAILURE, e)),
        Command::Scenario { command: wanted } => scenario_command::command(wanted, &command),
    };
    match ended {
        Ok(code) => code.into(),
        Err((code, sentence)) => {
            note(format_args!("{}: {sentence}", program_name(&command)));
            code.into()
        }
    }
}

/// Whether the arguments are those of `run` without the word: a URL somewhere, also after flags, as wrk and hey take it; or one without
/// `http://`, which `run` rejects with a suggestion.
fn is_run_without_its_name(args: &[String]) -> bool {
    let Some(first) = args.first() else { return false };
    let is_command = Cli::command().get_subcommands().any(|command| command.get_name() == first) || first == "help";
    let looks_like_a_host = !first.starts_with('-') && (first.contains(['.', ':', '/']) || first == "localhost");
    !is_command && (looks_like_a_host || args.iter().any(|arg| arg.contains("://")))
}

/// The name that the program was started by, without its directory: its error messages begin with it.
pub(crate) fn program_name(command: &[String]) -> &str {
    command.first().and_then(|program| Path::new(program).file_name()?.to_str()).unwrap_or("loadtest")
}

/// Says what is wrong with the arguments: one line for a wrong value, clap's own words (with its suggestions) for the rest.
fn refuse(error: &clap::Error, program: &str) -> ExitCode {
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            note(format_args!("{program}: {}", line.strip_prefix("error: ").unwrap_or(line)));
            exit::USAGE.into()
        }
        _ if error.use_stderr() => {
            let _ = error.print(); // With standard error closed there is no other place to say it.
            exit::USAGE.into()
        }
        // --help and --version.
        _ => match error.print() {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                note(format_args!("{program}: cannot write to standard output: {e}"));
                exit::FAILURE.into()
            }
            _ => exit::OK.into(),
        },
    }
}
