//! The command line: a wrong value is named with what is allowed, in one line; a right one takes effect.

mod process;

use std::process::{Command, Output, Stdio};

use clap::CommandFactory;
use process::{Server, command, get, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line on stderr that holds all of these, nothing on stdout, this exit code.
#[track_caller]
fn assert_complains(output: &Output, code: i32, needles: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].starts_with("server: "), "{stderr}");
    for needle in needles {
        assert!(lines[0].contains(needle), "{needle:?} is not in {stderr}");
    }
    for word in ["panicked", "RUST_BACKTRACE", "unwrap"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
    assert_eq!(text(&output.stdout), "");
}

/// Whether a line of the report begins with these words.
fn is_row(report: &str, words: &[&str]) -> bool {
    report.lines().any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
}

#[test]
fn a_wrong_value_is_named_with_what_is_allowed() {
    let table: &[(&[&str], &[&str])] = &[
        (&["--header-timeout", "10"], &["--header-timeout", "'10'", "unit", "10s"]),
        (&["--idle-timeout", "0s"], &["--idle-timeout", "'0s'", "above zero"]),
        (&["--shutdown-delay", "5"], &["--shutdown-delay", "'5'", "unit", "10s"]),
        (&["--body-bytes-max", "64KB"], &["--body-bytes-max", "'64KB'", "KiB"]),
        (&["--buffer-bytes-max", "1KiB"], &["--buffer-bytes-max", "1KiB", "4KiB", "16MiB"]),
        (&["--send-buffer-max", "64"], &["--send-buffer-max", "'64'", "unit", "auto"]),
        (&["--send-buffer-max", "1KiB"], &["--send-buffer-max", "1KiB", "4KiB", "1GiB"]),
        (&["--header-bytes-max", "128KiB"], &["--header-bytes-max", "128KiB", "64KiB"]),
        (&["--buffer-memory-max", "64KiB"], &["--buffer-memory-max", "64KiB", "at least"]),
        (&["--loops", "0"], &["--loops", "'0'", "1..=1024"]),
        (&["--workers", "0"], &["--workers", "'0'", "1..=4096"]),
        (&["--queue-jobs-max", "many"], &["--queue-jobs-max", "'many'"]),
        (&["--loops", "4", "--connections-max", "3"], &["--connections-max", "3", "4 loops"]),
        (&["--connections-max", "4000000000"], &["--connections-max", "4000000000", "ulimit -n"]),
        (&["--buffer-memory-max", "1048576GiB"], &["memory", "--buffer-memory-max"]),
        (&["--listener-sharing", "fair"], &["--listener-sharing", "'fair'", "reuse-port, exclusive, hand-off"]),
        (&["--half-close", "leave"], &["--half-close", "'leave'", "still-listens, has-left"]),
        (&["--queue-wait-max", "0ms"], &["--queue-wait-max", "'0ms'", "above zero"]),
        (&["--queue-standing-wait-max", "1"], &["--queue-standing-wait-max", "'1'", "unit"]),
        (&["--queue-discipline", "lifo"], &["--queue-discipline", "'lifo'", "fifo, newest-first, codel"]),
        (&["--queue-when-full", "grow"], &["--queue-when-full", "'grow'", "refuse-newest, drop-oldest, sample"]),
        (&["--queue-sample-percent", "100"], &["--queue-sample-percent", "'100'", "1..=99"]),
        (&["--queue-bound", "none"], &["--queue-bound", "'none'", "static, gradient"]),
        (&["--files-root", "/no/such/directory"], &["--files-root", "/no/such/directory", "directory"]),
        (&["--connections-per-source-max", "0"], &["--connections-per-source-max", "'0'", "1.."]),
        (&["--when-nearly-full", "panic"], &["--when-nearly-full", "'panic'", "evict, keep"]),
        (&["--body-rate-min", "500"], &["--body-rate-min", "'500'", "unit"]),
        (&["--body-rate-window", "0s"], &["--body-rate-window", "'0s'", "above zero"]),
        (&["--response-rate-min", "5GiB"], &["--response-rate-min", "5GiB", "0B"]),
        (&["--response-rate-window", "0s"], &["--response-rate-window", "'0s'", "above zero"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["stray"], &["stray"]),
    ];
    for (flags, needles) in table {
        assert_complains(&run(command().args(*flags)), 2, needles);
    }
    let own_address = Command::new(env!("CARGO_BIN_EXE_server")).args(["--listen", "localhost:http"]).output().expect("it runs");
    assert_complains(&own_address, 2, &["--listen", "'localhost:http'", "127.0.0.1:8080"]);
}

#[cfg(feature = "mistakes")]
#[test]
fn an_unknown_mistake_is_named_with_the_known_ones() {
    let allowed = server::demo::mistakes::PUBLIC.join(", ");
    assert_complains(&run(command().args(["--mistake", "no-such"])), 2, &["--mistake", "'no-such'", &allowed]);
    // In a table, but without its scenario and page: not to be had.
    for (slug, _) in server::demo::mistakes::all().filter(|(slug, _)| !server::demo::mistakes::PUBLIC.contains(slug)) {
        assert_complains(&run(command().args(["--mistake", slug])), 2, &[slug, &allowed]);
    }
}

#[cfg(feature = "mistakes")]
#[test]
fn the_list_of_mistakes_has_a_line_for_each_with_its_file() {
    let output = run(command().arg("--list-mistakes"));
    assert_eq!(output.status.code(), Some(0));
    let list = text(&output.stdout);
    assert_eq!(list.lines().count(), server::demo::mistakes::PUBLIC.len());
    for description in server::demo::mistakes::DESCRIPTIONS {
        let line = list.lines().find(|line| line.starts_with(description.slug)).expect("each has its line");
        assert!(line.contains(description.file) && line.contains(description.sentence), "{line}");
    }
}

#[cfg(not(feature = "mistakes"))]
#[test]
fn without_the_feature_there_is_no_flag() {
    assert_complains(&run(command().args(["--mistake", "loop-stall"])), 2, &["--mistake"]);
    assert_complains(&run(command().arg("--list-mistakes")), 2, &["--list-mistakes"]);
}

#[test]
fn the_environment_sets_what_no_flag_does_and_a_flag_goes_first() {
    let mut wrong = command();
    assert_complains(&run(wrong.env("SERVER_IDLE_TIMEOUT", "5")), 2, &["--idle-timeout", "'5'", "set by the variable SERVER_IDLE_TIMEOUT"]);
    let check = |command: &mut Command| text(&run(command.arg("--check")).stdout);
    let from_environment = check(command().env("SERVER_IDLE_TIMEOUT", "7s"));
    assert!(is_row(&from_environment, &["--idle-timeout", "7s", "variable"]), "{from_environment}");
    let empty = check(command().env("SERVER_IDLE_TIMEOUT", "").env("SERVER_LOOPS", "").env("SERVER_CHECK", ""));
    assert!(is_row(&empty, &["--idle-timeout", "1m", "default"]), "an empty variable is not set: {empty}");
    let in_range = run(command().env("SERVER_BUFFER_BYTES_MAX", "1KiB").arg("--check"));
    assert_complains(&in_range, 2, &["--buffer-bytes-max is 1KiB", "set by the variable SERVER_BUFFER_BYTES_MAX"]);
    assert!(
        !text(&run(command().args(["--idle-timeout", "5"]).env("SERVER_IDLE_TIMEOUT", "7s")).stderr).contains("SERVER_"),
        "the flag is wrong"
    );
    let from_flag = check(command().env("SERVER_IDLE_TIMEOUT", "7s").args(["--idle-timeout", "9s"]));
    assert!(is_row(&from_flag, &["--idle-timeout", "9s", "flag"]), "{from_flag}");
    for (value, shown) in [("128KiB", "128KiB"), ("auto", "auto"), ("0", "auto")] {
        let report = check(command().env("SERVER_SEND_BUFFER_MAX", value));
        assert!(is_row(&report, &["--send-buffer-max", shown, "variable"]), "{report}");
    }
}

#[test]
fn the_choices_around_jobs_take_effect_and_jobs_are_done_with_each() {
    let all: &[(&[&str], &str)] = &[
        (&[], "fifo"),
        (&["--queue-discipline", "newest-first"], "newest at 100ms"),
        (&["--queue-discipline", "codel"], "codel 5ms/100ms"),
        (&["--queue-when-full", "drop-oldest"], "drop-oldest"),
        (&["--queue-when-full", "sample", "--queue-sample-percent", "20"], "sample 20%"),
        (&["--queue-bound", "gradient"], "gradient"),
        (&["--half-close", "has-left"], "has-left"),
        (&["--listener-sharing", "hand-off"], "hand-off"),
        (&["--when-nearly-full", "evict"], "evict"),
        (&["--queue-wait-max", "70ms"], " 70ms  flag      a job that would wait longer"),
        // What follows from it: no more than it, and no more than half of what the client allows.
        (&["--queue-wait-max", "70ms"], " 70ms  default   the same once the queue"),
        (&["--job-deadline", "90ms"], " 45ms  default   a job that would wait longer"),
    ];
    for (flags, shown) in all {
        let checked = text(&run(command().args(*flags).arg("--check")).stdout);
        assert!(checked.contains(shown), "{flags:?}: {checked}");
        let server = Server::start(flags);
        assert_eq!(get(server.http, "/spin?ms=1").body, "spun 1 ms\n", "{flags:?}");
    }
}

#[test]
fn the_first_line_has_the_real_ports_and_the_process_id_and_nothing_follows() {
    let mut server = Server::start(&[]);
    assert_eq!(server.first_line, format!("listening http={} admin={} pid={}\n", server.http, server.admin, server.pid()));
    assert!(server.http.port() != 0 && server.admin.port() != 0);
    assert_eq!(get(server.http, "/").body, "Hello, World!");
    server.signal("TERM");
    assert_eq!(server.rest_of_stdout(), "");
}

#[test]
fn a_closed_stdout_or_stderr_does_not_end_the_server() {
    let program = env!("CARGO_BIN_EXE_server");
    let flags = "--listen 127.0.0.1:0 --admin 127.0.0.1:0";
    for redirection in [
        // stdout closed: the ports are then known from the log, which says the same words; grep drops the lines before them, and goes on reading.
        format!("exec 3>&1; {program} {flags} 2>&1 >&- | grep --line-buffered -o 'listening .*' >&3"),
        format!("exec {program} {flags} 2>&-"),
    ] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &redirection]).stderr(Stdio::null());
        let server = Server::spawn(&mut shell);
        assert_eq!(get(server.http, "/").status, 200, "{redirection}");
        assert_eq!(get(server.admin, "/healthz").status, 200, "{redirection}");
        // The shell is our child, not the server: the server's own line names it.
        let pid = server.first_line.split("pid=").nth(1).expect("it is there").trim().to_owned();
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().expect("there is a shell");
        assert!(status.success());
    }
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let server = Server::start(&[]);
    let (http, admin) = (server.http.to_string(), server.admin.to_string());
    for flags in [
        &["--loops", "1"][..],
        &["--loops", "2"],
        &["--loops", "2", "--listener-sharing", "exclusive"],
        &["--loops", "2", "--listener-sharing", "hand-off"],
    ] {
        let program = || Command::new(env!("CARGO_BIN_EXE_server"));
        assert_complains(&run(program().args(["--listen", &http, "--admin", "127.0.0.1:0"]).args(flags)), 1, &[&http, "in use"]);
        assert_complains(&run(program().args(["--listen", "127.0.0.1:0", "--admin", &admin]).args(flags)), 1, &[&admin, "in use"]);
    }
    assert_eq!(get(server.http, "/").status, 200, "and the one that has the port goes on");
}

#[test]
fn two_servers_of_several_loops_do_not_share_a_port_by_accident() {
    let server = Server::start(&["--loops", "2"]);
    let http = server.http.to_string();
    let mut second = Command::new(env!("CARGO_BIN_EXE_server"));
    assert_complains(&run(second.args(["--listen", &http, "--admin", "127.0.0.1:0", "--loops", "2"])), 1, &[&http, "in use"]);
}

fn addresses(server: &Server) -> Vec<std::net::SocketAddr> {
    let words = server.first_line.split_whitespace().filter_map(|word| word.strip_prefix("http="));
    words.map(|word| word.parse().expect("an address")).collect()
}

#[test]
fn several_listeners_serve_and_share_one_limit_of_connections() {
    for (loops, sharing) in [("1", "reuse-port"), ("2", "reuse-port"), ("2", "exclusive"), ("2", "hand-off")] {
        let server = Server::start(&["--loops", loops, "--listener-sharing", sharing, "--listen", "127.0.0.2:0"]);
        let addresses = addresses(&server);
        assert_eq!(addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"]);
        for address in addresses {
            for _ in 0..20 {
                assert_eq!(get(address, "/").body, "Hello, World!", "{address} {loops} {sharing}");
            }
        }
    }
    let server = Server::start(&["--loops", "1", "--listen", "127.0.0.2:0", "--connections-max", "2", "--when-nearly-full", "keep"]);
    let addresses = addresses(&server);
    let _held: Vec<_> = addresses.iter().map(|address| std::net::TcpStream::connect(address).expect("it accepts")).collect();
    let open = "connections{loop=\"loop-0\",state=\"open\"}";
    process::wait_for("both to be counted", || (process::sample(server.admin, open) == 2.0).then_some(()));
    for address in addresses {
        let rejection = get(address, "/");
        assert_eq!((rejection.status, &*rejection.body), (503, "too many connections\n"), "one limit for both");
        let seconds: u32 = rejection.header("Retry-After").and_then(|value| value.parse().ok()).expect("a number of seconds");
        assert!((1..=3).contains(&seconds) && rejection.header("Connection") == Some("close"), "Retry-After: {seconds}");
    }
    let list = Server::spawn(command().args(["--listen", "127.0.0.2:0,127.0.0.3:0"]).stderr(Stdio::null()));
    assert_eq!(list.first_line.matches("http=").count(), 3, "commas separate too: {}", list.first_line);
    let from_environment =
        Command::new(env!("CARGO_BIN_EXE_server")).args(["--check"]).env("SERVER_LISTEN", "127.0.0.2:1,[::1]:1").output();
    let report = text(&from_environment.expect("it runs").stdout);
    assert!(is_row(&report, &["--listen", "127.0.0.2:1", "variable"]) && is_row(&report, &["--listen", "[::1]:1", "variable"]), "{report}");
    let twice = Command::new(env!("CARGO_BIN_EXE_server")).args(["--listen", "127.0.0.2:1", "--listen", "127.0.0.2:1"]).output();
    assert_complains(&twice.expect("it runs"), 2, &["--listen", "127.0.0.2:1", "twice"]);
}

/// Each with a socket of its own at the same port, as configurations of other servers have it.
#[test]
fn the_unspecified_ipv6_address_serves_ipv4_unless_asked_not_to() {
    let start = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        Server::spawn(command.args(["--admin", "127.0.0.1:0"]).args(flags).stderr(Stdio::null()))
    };
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    for loops in ["1", "2"] {
        let both = start(&["--listen", "[::]:0", "--loops", loops]);
        let port = both.http.port();
        for address in [("127.0.0.1", port), ("::1", port)] {
            let address = std::net::ToSocketAddrs::to_socket_addrs(&address).expect("an address").next().expect("one");
            assert_eq!(get(address, "/").status, 200, "{address}");
        }
        drop(both);
        let ipv6 = start(&["--listen", "[::]:0", "--ipv6-only", "--loops", loops]);
        assert_eq!(get(std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, ipv6.http.port())), "/").status, 200);
        assert!(std::net::TcpStream::connect(("127.0.0.1", ipv6.http.port())).is_err());
        // A port that is free for both, as far as can be known.
        let free = std::net::TcpListener::bind("[::]:0").expect("a port").local_addr().expect("bound").port();
        let (v4, v6) = (format!("127.0.0.1:{free}"), format!("[::]:{free}"));
        let each = start(&["--listen", &v6, "--listen", &v4, "--loops", loops]);
        for address in [&v4, &format!("[::1]:{free}")] {
            assert_eq!(get(address.parse().expect("an address"), "/").status, 200, "{address}");
        }
        drop(each);
    }
}

#[test]
fn several_loops_serve_however_they_share_the_port() {
    for sharing in ["reuse-port", "exclusive", "hand-off"] {
        let server = Server::start(&["--loops", "3", "--listener-sharing", sharing]);
        for _ in 0..50 {
            assert_eq!(get(server.http, "/").body, "Hello, World!", "{sharing}");
        }
        assert_eq!(process::sample(server.admin, "http_requests_total{code_class=\"2xx\"}"), 50.0, "{sharing}");
    }
}

#[test]
fn files_are_served_from_the_directory_that_was_named() {
    let directory = tempfile::tempdir().expect("there is room for one");
    std::fs::write(directory.path().join("a.txt"), "from a file").expect("it can be written");
    let root = directory.path().to_str().expect("it is text");
    assert_eq!(get(Server::start(&["--files-root", root]).http, "/files/a.txt").body, "from a file");
    assert_eq!(get(Server::start(&[]).http, "/files/a.txt").status, 404);
    assert!(text(&run(command().args(["--check", "--files-root", root])).stdout).contains("each connection may have one under way"));
}

#[test]
fn check_prints_every_limit_with_its_reason_and_the_sums() {
    let output = run(command().arg("--check"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    // But for those that are no settings, and those that only some settings have.
    let elsewhere = ["check", "help", "version", "list-mistakes", "mistake", "files-root", "queue-sample-percent"];
    let command = server::args::Args::command();
    for flag in command.get_arguments().filter_map(|arg| arg.get_long()).filter(|flag| !elsewhere.contains(flag)) {
        let is_row = |line: &str| line.split_whitespace().next() == Some(&*format!("--{flag}"));
        assert!(report.lines().any(is_row), "--{flag} is not in {report}");
    }
    assert!(report.contains("a job whose result is not there by then gets a 504"), "{report}");
    // A line has the setting, its value, where that came from, and what it means.
    for line in report.lines().skip(4).take_while(|line| *line != "descriptors").filter(|line| line.starts_with("  ")) {
        let origins = ["default", "flag", "variable", "derived", "fixed", "system"];
        assert!(line.split_whitespace().any(|word| origins.contains(&word)), "{line}");
    }
    assert!(is_row(&report, &["--idle-timeout", "1m", "default"]) && is_row(&report, &["--listen", "127.0.0.1:0", "flag"]), "{report}");
    for needle in ["RLIMIT_NOFILE", "epoll, timer, waker, spare, listener", "reserve", "mailboxes", "\n  = "] {
        assert!(report.contains(needle), "{needle} is not in {report}");
    }
}

#[test]
fn under_a_low_descriptor_limit_the_connections_are_cut_and_too_many_are_refused() {
    let under = |limit: u32, flags: &str| {
        let script = format!("ulimit -n {limit}; exec {} --check {flags}", env!("CARGO_BIN_EXE_server"));
        run(Command::new("sh").args(["-c", &script]))
    };
    let cut = under(512, "");
    assert_eq!(cut.status.code(), Some(0), "{}", text(&cut.stderr));
    assert!(text(&cut.stdout).contains("= 512 of 512"), "{}", text(&cut.stdout));
    for refused in [under(512, "--connections-max 512"), under(64, "")] {
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stdout).contains("does not fit"));
        assert!(text(&refused.stderr).contains("ulimit -n"));
    }
    // And what is refused by --check does not start either.
    let script = format!("ulimit -n 64; exec {} --listen 127.0.0.1:0 --admin 127.0.0.1:0", env!("CARGO_BIN_EXE_server"));
    assert_complains(&run(Command::new("sh").args(["-c", &script])), 2, &["64", "ulimit -n"]);
}

#[test]
fn help_and_version_end_well() {
    for flag in ["--help", "--version"] {
        let output = run(command().arg(flag));
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("server"), "{}", text(&output.stdout));
    }
    assert!(text(&run(command().arg("--help")).stdout).contains("SERVER_HEADER_TIMEOUT"));
}
