//! The program that docs/deploy.md installs answers 404 to every demonstration route, and knows no deliberate mistake.
#![cfg(feature = "demo")]

mod process;
mod support;

use std::path::Path;
use std::process::Command;

use server::http::Method;
use server::routes::Routes;
use support::{Server, Setup};

/// The method and the path of each demonstration route, and the route of `docs/deploy.md` that proves that the program answers at all.
fn demonstration_routes() -> Vec<(&'static str, &'static str)> {
    let method = |methods: &[Method]| if methods.contains(&Method::Post) { "POST" } else { "GET" };
    let routes: Vec<_> = server::demo::ROUTES.iter().map(|(path, methods, _)| (method(methods), *path)).collect();
    for path in ["/spin", "/block", "/panic", "/digest", "/bytes", "/resolve", "/echo", "/sleep"] {
        assert!(routes.iter().any(|(_, known)| *known == path), "{path} is not in the table");
    }
    routes
}

#[test]
fn the_routes_of_the_installed_program_have_no_demonstration() {
    let server = Server::start(Routes::default(), Setup::default());
    let mut client = server.connect();
    for (method, path) in demonstration_routes() {
        client.send(format!("{method} {path}?ms=1&us=1&n=1&rounds=1&host=localhost HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.response().status, 404, "{path}");
    }
    server.serves();
}

/// The command of the page, in a debug build and another directory.
#[test]
#[ignore = "builds the server anew: a step of .ci/run"]
fn the_program_that_the_page_builds_answers_404_to_each_demonstration_route() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy.md")).expect("the page is there");
    let flags = "-p server --no-default-features";
    assert!(page.matches(flags).count() >= 2, "the page builds with {flags}, by hand and in the container");
    let target = Path::new(env!("CARGO_BIN_EXE_server")).ancestors().nth(2).expect("of a target directory").join("installed");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked"]).args(flags.split(' ')).env("CARGO_TARGET_DIR", &target);
    assert!(cargo.status().expect("there is cargo").success());
    let program = target.join("debug/server");
    let server = process::Server::spawn(Command::new(&program).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]));
    assert_eq!(process::get(server.http, "/").body, "Hello, World!");
    for (method, path) in demonstration_routes() {
        assert_eq!(process::ask(server.http, method, path).status, 404, "{path}");
    }
    let output = process::run(Command::new(&program).arg("--list-mistakes"));
    assert_eq!(output.status.code(), Some(2), "the flag is unknown");
}
