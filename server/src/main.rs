//! The server as a program. Everything is in the library, so that a load test can start the same server from its own executable.

#[cfg(feature = "demo")]
use server::demo as program;
#[cfg(not(feature = "demo"))]
use server::routes as program;

fn main() -> std::process::ExitCode {
    program::cli(std::env::args_os())
}
