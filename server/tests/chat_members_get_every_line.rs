//! `examples/line_chat.rs` as a real process: fifty members, one of whom never reads (`broadcast-copy`).

#[path = "process/example.rs"]
mod example;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use example::{Example, PATIENCE};

/// One member, from outside.
struct Member {
    reader: BufReader<TcpStream>,
    name: u64,
}

impl Member {
    fn join(address: SocketAddr) -> Member {
        Member::with(TcpStream::connect(address).expect("connect"))
    }

    /// A member for whom the kernel holds about as much as this while it does not read.
    fn join_with_window(address: SocketAddr, bytes: usize) -> Member {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF");
        socket.connect(&address.into()).expect("connect");
        Member::with(socket.into())
    }

    /// Its welcome is read: from here on it is a member.
    fn with(stream: TcpStream) -> Member {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        let mut member = Member { reader: BufReader::new(stream), name: 0 };
        let welcome = member.line();
        let name = welcome.strip_prefix("* you are ").and_then(|name| name.parse().ok());
        member.name = name.unwrap_or_else(|| panic!("no welcome: {welcome:?}"));
        member
    }

    fn say(&mut self, lines: &str) {
        self.reader.get_mut().write_all(lines.as_bytes()).expect("the server takes it");
    }

    /// The next line, without its end.
    fn line(&mut self) -> String {
        self.try_line().expect("the server is still there")
    }

    fn try_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            // Half a line is none.
            Ok(_) if line.ends_with('\n') => Some(line.trim_end().to_owned()),
            Ok(_) => None,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
            Err(e) => panic!("{e}"),
        }
    }

    fn is_gone(&mut self) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

const MEMBERS: usize = 50;
/// Lines said together, before everybody reads them: far less than the backlog, so nobody who reads can be overtaken.
const BATCH: u64 = 64;
const LINE_BYTES: usize = 1000;

/// Numbered from the first.
fn text(number: u64) -> String {
    format!("{number:0width$}", width = LINE_BYTES)
}

struct Room {
    server: Example,
    /// Those who read. The first one talks.
    members: Vec<Member>,
    never_reads: Member,
    said: u64,
}

impl Room {
    fn new(policy: &str) -> Room {
        let server = Example::start("line_chat", &["127.0.0.1:0", policy]);
        let members = (1..MEMBERS).map(|_| Member::join(server.address)).collect();
        let never_reads = Member::join_with_window(server.address, 4096);
        Room { server, members, never_reads, said: 0 }
    }

    /// One batch: everybody who reads gets all of it, in order.
    fn talk(&mut self) {
        let numbers = self.said..self.said + BATCH;
        let batch: String = numbers.clone().map(|number| text(number) + "\n").collect();
        let speaker = self.members[0].name;
        self.members[0].say(&batch);
        let expected: String = numbers.map(|number| format!("{speaker}: {}\n", text(number))).collect();
        let mut got = vec![0; expected.len()];
        for member in &mut self.members {
            member.reader.read_exact(&mut got).expect("all lines");
            assert!(got == expected.as_bytes(), "member {} got {}", member.name, String::from_utf8_lossy(&got));
        }
        self.said += BATCH;
    }

    /// The numbers of the lines that a member got, and of what it was told to have missed; the last must follow.
    fn heard(&mut self, mut line: String, last: u64) -> (u64, u64) {
        let (mut expected, mut missed, speaker) = (0, 0, self.members[0].name);
        loop {
            if let Some(count) = line.strip_prefix("* you missed ").and_then(|rest| rest.strip_suffix(" lines")) {
                let count: u64 = count.parse().expect("a number");
                (expected, missed) = (expected + count, missed + count);
            } else {
                assert_eq!(line, format!("{speaker}: {}", text(expected)), "after {missed} that it was told to have missed");
                expected += 1;
                if expected > last {
                    return (expected - missed, missed);
                }
            }
            line = self.never_reads.line();
        }
    }
}

/// So much is said at most before the one that does not read must have been overtaken: what the kernel holds for it, which is at most
/// `tcp_wmem[2]` (tcp(7)), the 64 KiB of its output, and the backlog of 1 MiB.
fn batches_max() -> u64 {
    let wmem = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
    let wmem_max: u64 = wmem.split_whitespace().nth(2).and_then(|max| max.parse().ok()).unwrap_or(4 << 20);
    ((2 << 20) + wmem_max) / (BATCH * LINE_BYTES as u64) + 1
}

#[test]
fn who_never_reads_is_told_how_many_lines_it_missed_and_everyone_else_gets_every_line_in_order() {
    let mut room = Room::new("skip");
    room.talk();
    let before_bytes = room.server.resident_bytes();
    for _ in 0..batches_max() {
        room.talk();
    }
    // One copy for each member would be fifty times what was said; one for the slow member alone, all of it.
    let said_bytes = room.said * LINE_BYTES as u64;
    let grown_bytes = room.server.resident_bytes().saturating_sub(before_bytes);
    assert!(said_bytes > 6 << 20, "too little was said to show anything: {said_bytes}");
    assert!(grown_bytes < 4 << 20, "{grown_bytes} bytes more after {said_bytes} were said");

    let (first, last) = (room.never_reads.line(), room.said - 1);
    let (got, missed) = room.heard(first, last);
    assert!(missed > 0 && got > 0, "{got} lines came, {missed} were missed");
    assert_eq!(got + missed, room.said);
    // It has caught up, and is a member like any other.
    room.talk();
    let next = room.never_reads.line();
    assert_eq!(room.heard_next(&next), room.said - BATCH);
}

impl Room {
    fn heard_next(&self, line: &str) -> u64 {
        let text = line.strip_prefix(&format!("{}: ", self.members[0].name)).expect("a line of the speaker");
        text.parse().expect("a numbered line")
    }
}

#[test]
fn who_never_reads_is_disconnected_where_that_is_the_policy_and_everyone_else_gets_every_line_in_order() {
    let mut room = Room::new("disconnect");
    let open = room.server.descriptors();
    let mut batches = 0;
    while room.server.descriptors() == open {
        assert!(batches <= batches_max(), "{batches} batches, and it is still there");
        room.talk();
        batches += 1;
    }
    assert_eq!(room.server.descriptors(), open - 1, "one and no other");
    room.talk();
    // What had left before is whole and in order; then it ends, without a word in between.
    let mut expected = 0;
    while let Some(line) = room.never_reads.try_line() {
        assert_eq!(room.heard_next(&line), expected);
        expected += 1;
    }
    assert!(expected < room.said);
}

/// All speak at once, and nobody reads until all have spoken: what is said fits the kernel's buffers and each member's output, but is twice
/// the backlog (a short line costs it more than its bytes). So whoever is overtaken was overtaken within the server, by others whom it
/// should have held back.
#[test]
fn members_who_all_speak_at_once_overtake_nobody() {
    const SPEAKERS: usize = 256;
    /// What one visit takes.
    const LINES_EACH: usize = 128;
    let server = Example::start("line_chat", &["127.0.0.1:0", "disconnect"]);
    let mut members: Vec<Member> = (0..SPEAKERS).map(|_| Member::join_with_window(server.address, 212_992)).collect();
    // So that one turn finds them all.
    server.signal("STOP");
    members.iter_mut().for_each(|member| member.say(&"x\n".repeat(LINES_EACH)));
    server.signal("CONT");
    let mut all = None;
    for member in &mut members {
        let lines: Vec<String> = (0..SPEAKERS * LINES_EACH).map(|_| member.line()).collect();
        let all = all.get_or_insert_with(|| lines.clone());
        assert!(*all == lines, "all see the same lines in the same order");
    }
    let mut of_each: HashMap<String, usize> = HashMap::new();
    all.unwrap_or_default().into_iter().for_each(|line| *of_each.entry(line).or_default() += 1);
    assert_eq!(of_each.len(), SPEAKERS);
    assert!(of_each.values().all(|count| *count == LINES_EACH), "{of_each:?}");
}

#[test]
fn lines_are_the_same_however_they_arrive_and_too_long_ones_end_the_connection() {
    let server = Example::start("line_chat", &["127.0.0.1:0"]);
    let (mut talker, mut listener) = (Member::join(server.address), Member::join(server.address));
    for piece in ["he", "llo\r", "\n", "\n\ntwo\nthr", "ee\n"] {
        talker.say(piece);
    }
    let name = talker.name;
    for expected in ["hello", "two", "three"] {
        assert_eq!(listener.line(), format!("{name}: {expected}"));
        assert_eq!(talker.line(), format!("{name}: {expected}"));
    }
    talker.say(&"a".repeat(1023));
    talker.say("\n");
    assert_eq!(listener.line().len(), 1023 + 3);
    talker.say(&"a".repeat(5000));
    talker.line();
    assert_eq!(talker.line(), "* your line is too long");
    talker.is_gone();
    listener.say("still here\n");
    assert_eq!(listener.line(), format!("{}: still here", listener.name));
}

#[test]
fn who_says_nothing_is_asked_once_and_then_has_to_go() {
    let server = Example::start("line_chat", &["127.0.0.1:0", "skip", "2"]);
    let mut silent = Member::join(server.address);
    let mut answers = Member::join(server.address);
    for _ in 0..2 {
        assert_eq!(answers.line(), "* still there? an empty line will do");
        answers.say("\n");
    }
    assert_eq!(silent.line(), "* still there? an empty line will do");
    assert_eq!(silent.line(), "* nobody there");
    silent.is_gone();
    assert_eq!(answers.line(), "* still there? an empty line will do");
}

#[test]
fn who_half_closes_gets_what_was_said_before() {
    let server = Example::start("line_chat", &["127.0.0.1:0"]);
    let mut member = Member::join(server.address);
    member.say("last words\n");
    member.reader.get_ref().shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(member.line(), format!("{}: last words", member.name));
    assert_eq!(member.line(), "* bye");
    member.is_gone();
}

#[test]
fn at_sigterm_everyone_gets_what_was_said_and_a_word_and_the_process_ends_well() {
    let mut server = Example::start("line_chat", &["127.0.0.1:0"]);
    let mut members: Vec<Member> = (0..10).map(|_| Member::join(server.address)).collect();
    members[0].say("one\ntwo\n");
    let speaker = members[0].name;
    // One has read it, so it was said before the signal. The others have it coming.
    assert_eq!(members[9].line(), format!("{speaker}: one"));
    assert_eq!(members[9].line(), format!("{speaker}: two"));
    server.signal("TERM");
    let mut seen = HashSet::new();
    for mut member in members {
        if member.name != 10 {
            assert_eq!(member.line(), format!("{speaker}: one"));
            assert_eq!(member.line(), format!("{speaker}: two"));
        }
        assert_eq!(member.line(), "* the server is full or going down");
        member.is_gone();
        assert!(seen.insert(member.name));
    }
    assert!(server.wait().success());
    assert!(TcpStream::connect_timeout(&server.address, Duration::from_secs(1)).is_err(), "nobody listens any more");
}
