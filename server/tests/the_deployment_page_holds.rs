//! docs/deploy.md says nothing that is not so: flags and variables exist, units, proxies' configurations and numbers fit each other.
//!
//! Where a program that could check a block is missing, that is said, unless `REQUIRE_TOOLS` is set (systemd-analyze: only said, since
//! containers have none).

#[path = "data/deployment_page.rs"]
mod deployment_page;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use deployment_page::{is_installed, page};
use server::args::Args;

/// The blocks of that language.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split_once("```").expect("the block ends").0.to_owned()).collect()
}

fn block(language: &str) -> String {
    let [block] = <[String; 1]>::try_from(blocks(language)).expect("there is one");
    block
}

/// All words of the page that begin so and go on with such characters.
fn words(begin: &str, more: fn(char) -> bool) -> Vec<String> {
    let page = page();
    let found = page.match_indices(begin).map(|(at, _)| {
        let end = page[at..].find(|c| !more(c)).map_or(page.len(), |n| at + n);
        page[at..end].to_owned()
    });
    found.collect()
}

#[track_caller]
fn assert_accepts(command: &mut Command) {
    let output = command.output().expect("it is installed");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
}

#[test]
fn every_variable_and_every_flag_that_it_names_exists() {
    let command = Args::command();
    let known: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|arg| {
            Some((arg.get_long()?.to_owned(), arg.get_env().map_or_else(String::new, |name| name.to_string_lossy().into_owned())))
        })
        .collect();
    let variables = words("SERVER_", |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    assert!(variables.len() > 10);
    for name in variables {
        assert!(known.iter().any(|(_, variable)| *variable == name), "{name} is no variable of the server");
    }
    // Flags of other programs.
    let others = ["release", "locked", "no-default-features", "time", "from"];
    let flags = words("--", |c| c.is_ascii_lowercase() || c == '-');
    for flag in flags.iter().map(|flag| flag.trim_matches('-')).filter(|flag| !flag.is_empty() && !others.contains(flag)) {
        assert!(known.iter().any(|(long, _)| long == flag), "--{flag} is no flag of the server");
    }
}

/// Seconds of `NAME=5s`, `NAME, value: 5s` or `NAME: 5`.
fn seconds(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{name} is not in {text}"));
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name} has no number"))
}

#[test]
fn whoever_kills_waits_longer_than_the_server_needs() {
    let unit = blocks("ini").into_iter().find(|block| block.contains("[Service]")).expect("there is a unit");
    for (text, kills_after) in [(&unit, "TimeoutStopSec"), (&block("yaml"), "terminationGracePeriodSeconds")] {
        let needed = seconds(text, "SERVER_SHUTDOWN_DELAY") + seconds(text, "SERVER_SHUTDOWN_GRACE") + 1;
        assert!(seconds(text, kills_after) > needed, "{kills_after} is too short: {needed} s are needed");
    }
}

#[test]
fn the_container_gets_the_signal_and_runs_as_nobody() {
    let file = block("dockerfile");
    for line in ["STOPSIGNAL SIGTERM", "ENTRYPOINT [\"/usr/local/bin/server\"]", "USER 65534:65534"] {
        assert!(file.lines().any(|found| found == line), "{line} is not in {file}");
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).expect("it is there");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("it is set").trim_matches('"').to_owned();
    assert!(file.contains(&format!("FROM rust:{version}-")), "the image is not of Rust {version}");
}

#[test]
fn systemd_accepts_the_units() {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("there is room for one");
    let units = blocks("ini");
    assert_eq!(units.len(), 2);
    let mut paths = Vec::new();
    for unit in units {
        let (first, _) = unit.split_once('\n').expect("it has lines");
        let path = directory.path().join(first.trim_start_matches("# "));
        // The program that it names must be there.
        fs::write(&path, unit.replace("/usr/local/bin/server", env!("CARGO_BIN_EXE_server"))).expect("it can be written");
        paths.push(path);
    }
    let output = Command::new("systemd-analyze").arg("verify").args(&paths).output().expect("it is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What it has to say of other units of this machine is not our matter.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("server.service") || line.contains("server.socket")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

/// A certificate that nobody trusts, with its key, in one file.
fn certificate(directory: &Path) -> String {
    let (key, pem) = (directory.join("key.pem"), directory.join("site.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=test",
        "-keyout",
    ]);
    assert_accepts(openssl.arg(&key).arg("-out").arg(&pem));
    let both = fs::read_to_string(&pem).expect("it was written") + &fs::read_to_string(&key).expect("it was written");
    fs::write(&pem, both).expect("it can be written");
    pem.to_string_lossy().into_owned()
}

#[test]
fn haproxy_and_nginx_accept_their_configurations() {
    if !is_installed("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("there is room for one");
    let pem = certificate(directory.path());
    if is_installed("haproxy") {
        let path = directory.path().join("haproxy.cfg");
        fs::write(&path, block("haproxy").replace("/etc/haproxy/site.pem", &pem)).expect("it can be written");
        assert_accepts(Command::new("haproxy").args(["-c", "-f"]).arg(&path));
    }
    if is_installed("nginx") {
        let path = directory.path().join("nginx.conf");
        // It opens the port and its log to check: ours need no root, and no port.
        let own = format!("pid {0}/pid;\nerror_log {0}/error.log;\n", directory.path().display());
        let config = block("nginx")
            .replace("/etc/nginx/site.pem", &pem)
            .replace("listen 443 ssl", &format!("listen unix:{}/socket ssl", directory.path().display()));
        fs::write(&path, own + &config).expect("it can be written");
        assert_accepts(Command::new("nginx").arg("-t").arg("-p").arg(directory.path()).arg("-c").arg(&path));
    }
}
