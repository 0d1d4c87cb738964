//! The server as a program. Everything is in the library, so that a load test can start the same server from its own executable.

fn main() -> std::process::ExitCode {
    server::routes::cli(std::env::args_os())
}
