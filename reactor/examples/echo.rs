//! The smallest use of the reactor, fit for production: a TCP echo with backpressure, an idle timeout and limits.
//!
//! `cargo run --release -p reactor --example echo -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use reactor::listen::socket::{ListenOptions, listen};
use reactor::{Config, Context, EventLoop, Handler, LinuxListener, ListenerWakes, Origin};

const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

struct Echo;

impl Handler for Echo {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        cx.deadline(Some(cx.now() + cx.spread(IDLE_TIMEOUT)));
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        cx.deadline(Some(cx.now() + cx.spread(IDLE_TIMEOUT)));
        let taken = cx.write(input);
        if taken == 0 {
            // The peer does not read. What it sends meanwhile stays in the kernel, until its own writes block: backpressure.
            cx.want_writable();
        }
        taken
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
}

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("{address}: not an address; expected for example 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    match run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: SocketAddr) -> std::io::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Echo)?;
    let socket = listen(address, ListenOptions::default())?;
    println!("listening {}", socket.local_addr()?);
    event_loop.listen_on(LinuxListener::new(socket)?, ListenerWakes::All)?;
    event_loop.run().map(|_| ())
}
