//! The server under test: started on CPU 0, whatever its command is, and never left behind.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::turns::Turns;

/// nginx as its peers are: one process, no log, a backlog as long as ours.
const NGINX: &str = "daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log /dev/null;
worker_rlimit_nofile 20000;
events { worker_connections 19000; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600;
  client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
  server { listen 127.0.0.1:{port} backlog=4096; default_type text/plain; location / { return 200 \"Hello, World!\"; } } }
";

/// How long a server may take to listen.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Where it tells about itself, if its command has a place for that.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) pid: u32,
    child: Child,
    dir: Option<PathBuf>,
}

impl Target {
    /// Starts `command` and waits until it accepts a connection.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not listen.
    pub(crate) fn start(command: &str) -> io::Result<Target> {
        // Both are held until both are known: otherwise they could be the same.
        let ports = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
        let [port, admin_port] = [ports[0].local_addr()?.port(), ports[1].local_addr()?.port()];
        drop(ports);
        let admin = command.contains("{admin}").then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port)));
        let (command, dir) = if command == "nginx" {
            let dir = std::env::temp_dir().join(format!("adversity-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&dir)?;
            let config = NGINX.replace("{port}", &port.to_string()).replace("{dir}", &dir.to_string_lossy());
            std::fs::write(dir.join("nginx.conf"), config)?;
            (format!("nginx -c {}", dir.join("nginx.conf").display()), Some(dir))
        } else {
            (command.replace("{port}", &port.to_string()).replace("{admin}", &admin_port.to_string()), None)
        };
        let mut process = Command::new("taskset");
        // Its standard error stays ours: why a server does not start is said there.
        process.args(["-c", "0"]).args(command.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::null());
        loadtest::sys::die_with_parent(&mut process);
        let child = process.spawn().map_err(|e| io::Error::new(e.kind(), format!("cannot start taskset: {e}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut target = Target { address, admin, pid: child.id(), child, dir };
        let until = Instant::now() + READY_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until || target.child.try_wait()?.is_some() {
                return Err(io::Error::other(format!("'{command}' does not listen on port {port}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // What the start and the probe left to do is done before anything is measured.
        std::thread::sleep(Duration::from_millis(100));
        Ok(target)
    }

    /// Resident memory in KiB; 0 when it has gone.
    pub(crate) fn resident_kib(&self) -> u64 {
        server::process::usage_of(self.pid).map_or(0, |usage| usage.resident_bytes >> 10)
    }

    /// Its turns so far; none, if it does not tell.
    ///
    /// # Errors
    /// As [`Turns::read`].
    pub(crate) fn turns(&self) -> io::Result<Turns> {
        self.admin.map_or_else(|| Ok(Turns::default()), Turns::read)
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        // Nanoseconds on a CPU come first (proc(5)). A thread that ends meanwhile is no loss.
        let nanos = threads.filter_map(|thread| {
            let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
