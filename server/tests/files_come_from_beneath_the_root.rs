//! Files: their bytes, their types, and no way out of the root.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use reactor::listen::socket::ListenOptions;
use server::routes::Routes;
use support::{Gate, Server, Setup, get, until, with_gate};

struct Tree {
    /// Holds `root/` and, beside it, `secret`.
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).expect("mkdir");
        fs::write(dir.path().join("secret"), "secret").expect("write");
        fs::write(root.join("a.txt"), "hello").expect("write");
        fs::write(root.join("empty.css"), "").expect("write");
        fs::write(root.join("sub/page.HTML"), "<p>").expect("write");
        fs::write(root.join("a b"), "space").expect("write");
        fs::write(root.join("large"), numbered(1_000_000)).expect("write");
        // The entity tag of a file is weak until it is a second old: it would change while a test runs.
        for name in ["a.txt", "empty.css", "sub/page.HTML", "a b", "large"] {
            let file = fs::File::options().write(true).open(root.join(name)).expect("open");
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).expect("utimensat");
        }
        symlink("sub/page.HTML", root.join("inside")).expect("symlink");
        symlink("../secret", root.join("outside")).expect("symlink");
        symlink(dir.path().join("secret"), root.join("absolute")).expect("symlink");
        symlink(root.join("a.txt"), root.join("absolute-inside")).expect("symlink");
        symlink("circle", root.join("circle")).expect("symlink");
        symlink("/proc/self/root", root.join("magic")).expect("symlink");
        symlink("..", root.join("up")).expect("symlink");
        let made = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().expect("mkfifo");
        assert!(made.success());
        Tree { dir }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn server(&self, setup: Setup) -> Server {
        Server::start(Routes::new(Some(self.root())), setup)
    }
}

fn numbered(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(4) as u32).flat_map(u32::to_le_bytes).take(bytes).collect()
}

#[test]
fn files_have_their_bytes_and_types() {
    let tree = Tree::new();
    let server = tree.server(Setup::default());
    let mut client = server.connect();
    for (path, content_type, body) in [
        ("a.txt", "text/plain; charset=utf-8", b"hello".to_vec()),
        ("./sub/../a.txt", "text/plain; charset=utf-8", b"hello".to_vec()),
        ("sub/../sub//page.HTML", "text/html; charset=utf-8", b"<p>".to_vec()),
        ("inside", "application/octet-stream", b"<p>".to_vec()),
        ("a%20b", "application/octet-stream", b"space".to_vec()),
        ("%61.txt?v=2", "text/plain; charset=utf-8", b"hello".to_vec()),
        ("empty.css", "text/css; charset=utf-8", Vec::new()),
        ("large", "application/octet-stream", numbered(1_000_000)),
    ] {
        client.send(get(&format!("/files/{path}")));
        let response = client.response();
        assert_eq!((response.status, response.header("Content-Type")), (200, Some(content_type)), "{path}");
        assert_eq!(response.header("Content-Length"), Some(&*body.len().to_string()), "{path}");
        assert!(response.body == body, "{path}");
        client.send(get(&format!("/files/{path}")).replace("GET", "HEAD"));
        assert_eq!(client.response_to_head().without_date().head, response.without_date().head, "{path}");
    }
    drop(client);
    server.is_at_rest();
}

#[test]
fn nothing_outside_the_root_is_served() {
    let tree = Tree::new();
    let server = tree.server(Setup::default());
    let mut client = server.connect();
    for (path, status) in [
        ("../secret", 403),
        ("sub/../../secret", 403),
        ("%2e%2e/secret", 403),
        ("..%2fsecret", 403),
        ("%2fetc/passwd", 403),
        ("/etc/passwd", 403),
        ("outside", 403),
        ("absolute", 403),
        ("absolute-inside", 403),
        ("up/secret", 403),
        ("magic/etc/passwd", 403),
        ("circle", 403),
        ("", 403),
        (".", 403),
        ("sub", 403),
        ("sub/", 403),
        ("pipe", 403),
        ("nothing", 404),
        ("a.txt/b", 404),
        ("sub/nothing/../../a.txt", 404),
        ("%00", 400),
        ("%zz", 400),
        ("%ff", 400),
    ] {
        client.send(get(&format!("/files/{path}")));
        let response = client.response();
        assert!(!response.text().contains("secret"), "{path}");
        assert_eq!(response.status, status, "{path}");
    }
    client.send(get(&format!("/files/{}", "a".repeat(300))));
    assert_eq!(client.response().status, 404, "a name longer than any");
}

#[test]
fn a_root_that_is_not_there_yet_is_404() {
    let server = Server::start(Routes::new(Some(Path::new("/nonexistent/root").to_owned())), Setup::default());
    let mut client = server.connect();
    client.send(get("/files/a"));
    assert_eq!(client.response().status, 404);
}

#[test]
fn a_file_that_shrinks_ends_the_response_short() {
    let tree = Tree::new();
    let path = tree.root().join("shrinks");
    // Without blocks on the disk: only its length matters, and that no kernel buffer holds it.
    fs::File::create(&path).and_then(|file| file.set_len(1 << 30)).expect("a file");
    let listen = ListenOptions { send_buffer_bytes: Some(64 << 10), ..ListenOptions::default() };
    let setup = Setup { listen, ..Setup::default() };
    let server = tree.server(setup);
    let mut client = server.connect();
    client.send([get("/files/shrinks"), get("/")].concat());
    assert!(client.head().contains("Content-Length: 1073741824\r\n"));
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(1_000)).expect("shrunk");
    let received = client.until_gone();
    assert!(received.len() < 1 << 30);
    assert!(!received.ends_with(b"Hello, World!"), "nothing may follow");
    assert_eq!(server.http.broken_streams.get(), 1);
    server.is_at_rest();
    server.serves();
}

#[test]
fn more_downloads_than_the_pool_takes_jobs_all_arrive() {
    let tree = Tree::new();
    let mut setup = Setup::default();
    setup.pool.limits.queue_jobs_max = 2;
    setup.pool.limits.wait_max = Duration::MAX;
    let server = tree.server(setup);
    let expected = numbered(1_000_000);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // The open may be refused, and is then told so; the pieces may not.
                loop {
                    let mut client = server.connect();
                    client.send(get("/files/large"));
                    let response = client.response();
                    if response.status == 200 {
                        assert!(response.body == expected);
                        return;
                    }
                    assert_eq!(response.status, 503);
                }
            });
        }
    });
    assert_eq!(server.http.broken_streams.get(), 0);
    server.is_at_rest();
}

/// The one worker is held, so of two downloads at most one has a place in the queue, and each piece of the other one is rejected. Its client
/// only waits.
#[test]
fn a_piece_that_is_asked_for_again_is_no_rejected_job() {
    let tree = Tree::new();
    let mut setup = Setup { listen: ListenOptions { send_buffer_bytes: Some(16 << 10), ..ListenOptions::default() }, ..Setup::default() };
    setup.pool.threads = 1;
    setup.pool.limits.queue_jobs_max = 1;
    setup.pool.limits.wait_max = Duration::MAX;
    let gate = Gate::default();
    let server = Server::start(with_gate(Routes::new(Some(tree.root())), &gate), setup);
    // Neither reads the body yet, so there is enough left of it when the worker is held.
    let mut downloads = [server.connect(), server.connect()];
    for download in &mut downloads {
        download.send(get("/files/large"));
        download.head();
        download.stream.set_nonblocking(true).expect("it is a socket");
    }
    let mut holders = Vec::new();
    until("the worker is held", || {
        let mut client = server.connect();
        client.send(get("/hold?n=1"));
        holders.push(client);
        gate.held() == 1
    });
    until("a piece is rejected three times", || {
        downloads.iter().for_each(|download| drop((&download.stream).read(&mut [0; 64 << 10])));
        server.http.stream_retries.get() >= 3
    });
    until("each rejected job is a 503", || server.http.jobs_refused.get() == server.http.responses(5).get());
    gate.open();
}
