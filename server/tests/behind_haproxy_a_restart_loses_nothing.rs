//! Two servers behind a real HAProxy, with the configuration that docs/deploy.md shows, restarted in turn under load: no request fails.
//!
//! Without haproxy it says that it was skipped, unless `REQUIRE_TOOLS` is set.

mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use process::{PATIENCE, Server, wait_for};
use socket2::{Domain, Socket, Type};

/// How often each of the two is restarted.
const RESTARTS: usize = 2;

/// How long a client is at the body of its request.
const BETWEEN_HALVES: Duration = Duration::from_millis(15);

/// A port that is ours for the length of the test, also while nobody listens on it: a bound socket keeps it from being anybody's source
/// port, and with `SO_REUSEADDR` on both, as on every listener of the server, another may bind and listen (socket(7)).
struct Port {
    address: SocketAddr,
    _reserved: Socket,
}

impl Port {
    fn reserve() -> Port {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is left");
        socket.set_reuse_address(true).expect("it is a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        Port { address, _reserved: socket }
    }
}

/// Where an instance of the server lives, through all its restarts.
struct Place {
    http: Port,
    admin: Port,
}

impl Place {
    fn reserve() -> Place {
        Place { http: Port::reserve(), admin: Port::reserve() }
    }

    fn start(&self, delay: &str) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SERVER_")) {
            command.env_remove(name);
        }
        let (http, admin) = (self.http.address.to_string(), self.admin.address.to_string());
        command.args(["--listen", &http, "--admin", &admin, "--shutdown-delay", delay, "--shutdown-grace", "60s"]);
        let server = Server::spawn(command.stderr(Stdio::null()));
        assert_eq!((server.http, server.admin), (self.http.address, self.admin.address));
        server
    }
}

/// A running HAProxy. Dropping it kills it.
struct Proxy {
    child: Child,
    address: SocketAddr,
    control: PathBuf,
}

impl Proxy {
    /// The page's configuration with our addresses.
    fn start(directory: &Path, places: &[Place; 2]) -> Proxy {
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy.md")).expect("the page is there");
        let (_, block) = page.split_once("```haproxy\n").expect("the page shows a configuration");
        let mut config = block.split_once("```").expect("it ends").0.to_owned();
        let control = directory.join("control");
        let mut replace = |shown: &str, ours: &str| {
            assert_eq!(config.matches(shown).count(), 1, "{shown} is in the page's configuration once");
            config = config.replace(shown, ours);
        };
        replace("global\n", &format!("global\n    stats socket {} level admin\n", control.display()));
        replace("maxconn 20000", "maxconn 1000");
        // Plain, and on a socket that is there already: a port of the system's choice.
        replace("bind :443 ssl crt /etc/haproxy/site.pem alpn h2,http/1.1", "bind fd@3");
        replace("maxconn 5000", "maxconn 400");
        replace("inter 1s", "inter 100ms");
        replace("check port 9090 ", "check ");
        for (shown, place) in ["server a 10.0.0.11:8080", "server b 10.0.0.12:8080"].into_iter().zip(places) {
            let ours = format!("{} {} port {}", &shown[..8], place.http.address, place.admin.address.port());
            replace(shown, &ours);
        }
        let path = directory.join("haproxy.cfg");
        std::fs::write(&path, config).expect("it can be written");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<&0 </dev/null; exec haproxy -db -f \"$0\""]).arg(&path);
        let child = command.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).spawn().expect("haproxy was there a moment ago");
        Proxy { child, address, control }
    }

    /// What it thinks of a server of its backend: `UP`, or `DOWN`, or something in between.
    fn state(&self, server: &str) -> Option<String> {
        let mut control = UnixStream::connect(&self.control).ok()?;
        control.write_all(b"show stat\n").ok()?;
        let mut table = String::new();
        control.read_to_string(&mut table).ok()?;
        let mut lines = table.lines();
        let status = lines.next()?.split(',').position(|name| name == "status")?;
        let line = lines.find(|line| line.starts_with(&format!("servers,{server},")))?;
        line.split(',').nth(status).map(str::to_owned)
    }

    fn wait_until(&self, server: &str, wanted: &str) {
        wait_for(&format!("haproxy to see {server} {wanted}"), || self.state(server).filter(|state| state == wanted));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that keeps its connection to the proxy, one request after another. One in two is a POST, whose body takes a while: the proxy does
/// not send it twice, so one that is in flight when a server ends must be answered by that server. Panics when one is not answered as it should be.
fn client(proxy: SocketAddr, stop: &AtomicBool, served: &AtomicU64) {
    let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    // Or the first half of a body waits for the acknowledgement of the head, and leaves together with the second.
    stream.set_nodelay(true).expect("it is a socket");
    let requests = [("GET /", "", "Hello, World!"), ("POST /echo", "first last", "first last")];
    for (target, sent, body) in requests.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let head = format!("{target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", sent.len());
        stream.write_all(head.as_bytes()).expect("the proxy reads");
        for half in [&sent[..sent.len() / 2], &sent[sent.len() / 2..]].into_iter().filter(|half| !half.is_empty()) {
            stream.write_all(half.as_bytes()).expect("the proxy reads");
            // Not to get a time right: only so that requests are in flight for most of the time.
            thread::sleep(BETWEEN_HALVES);
        }
        let mut response = String::new();
        while !response.ends_with(body) {
            let mut piece = [0; 1024];
            let n = stream.read(&mut piece).expect("the proxy answers");
            assert!(n > 0, "the proxy closed after {response:?}");
            response.push_str(&String::from_utf8_lossy(&piece[..n]));
            assert!(response.starts_with("HTTP/1.1 200 ") || response.len() < 13, "{target}: {response}");
        }
        served.fetch_add(1, Ordering::Relaxed);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn two_servers_restarted_in_turn_lose_no_request() {
    restart_in_turn("500ms");
}

#[test]
fn without_the_delay_what_is_refused_goes_to_the_other_one() {
    restart_in_turn("0s");
}

fn restart_in_turn(delay: &str) {
    let is_there = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_there {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "haproxy is not installed");
        eprintln!("skipped: haproxy is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("there is room for one");
    let places = [Place::reserve(), Place::reserve()];
    let mut servers = places.each_ref().map(|place| place.start(delay));
    let proxy = Proxy::start(directory.path(), &places);
    for name in ["a", "b"] {
        proxy.wait_until(name, "UP");
    }
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let some_more = || {
        let until = served.load(Ordering::Relaxed) + 100;
        wait_for("100 more requests", || (served.load(Ordering::Relaxed) >= until).then_some(()));
    };
    thread::scope(|scope| {
        // Stops the clients also when an assertion below fails: else the scope would wait for them for ever.
        let _stop = StopOnDrop(&stop);
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| client(proxy.address, &stop, &served))).collect();
        for _ in 0..RESTARTS {
            for (index, name) in ["a", "b"].into_iter().enumerate() {
                some_more();
                let old = &mut servers[index];
                old.signal("TERM");
                assert_eq!(old.wait().code(), Some(0));
                some_more();
                // Until it has seen that nobody is there: an UP from before would say nothing of the next one.
                proxy.wait_until(name, "DOWN");
                servers[index] = places[index].start(delay);
                proxy.wait_until(name, "UP");
            }
        }
        some_more();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("every request was answered");
        }
    });
    for server in &servers {
        assert!(process::sample(server.admin, "http_requests_total{code_class=\"2xx\"}") > 0.0, "both have served since their last start");
    }
}
