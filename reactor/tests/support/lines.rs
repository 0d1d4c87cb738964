//! A line protocol: whatever line comes goes back, except those that ask for something special.
//!
//! `pause`: no more input until [`Mail::Resume`]. `close`: `bye`, then an orderly close. `abort`: at once. `many N`: N bytes of
//! [`super::pattern`], as there is room. `wake`: wakes the connection that was opened first. `panic A,B`: panics in those callbacks.
//! What happens is reported on a channel.

use std::sync::mpsc::{Receiver, Sender, channel};

use reactor::{CloseReason, Context, Handler, LoopContext, Origin, Pressure, Token};

/// What happened on the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Opened(Token),
    Paused(Token),
    Ended { rest_bytes: usize },
    Room(Token),
    Deadline(Token),
    Pressed(Token, Pressure),
    Closed(Token, CloseReason),
    Delivered { to: Token, number: u32 },
    Undelivered(u32),
}

/// What a test may send to a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail {
    Resume,
    Close,
    Number(u32),
}

/// The protocol.
pub struct Lines {
    told: Sender<Told>,
    first: Option<Token>,
    /// Written when a connection is pressed.
    pub goodbye: &'static str,
    /// Panics when mail comes back.
    pub panics_over_undelivered: bool,
}

/// One connection.
pub struct Conn {
    token: Token,
    /// What `many` still owes, and how much it was.
    owed: usize,
    many: usize,
    panic_in: Option<String>,
    /// The peer has half-closed; what is owed is still paid.
    ending: bool,
}

impl Lines {
    /// The protocol, and what it tells.
    pub fn new() -> (Lines, Receiver<Told>) {
        let (told, heard) = channel();
        (Lines { told, first: None, goodbye: "", panics_over_undelivered: false }, heard)
    }

    /// The protocol for tests that only talk.
    pub fn silent() -> Lines {
        Lines::new().0
    }

    fn tell(&self, told: Told) {
        // Nobody listens in tests that only talk.
        let _ = self.told.send(told);
    }
}

impl Conn {
    fn panic_if(&self, place: &str) {
        if self.panic_in.as_deref().is_some_and(|places| places.split(',').any(|armed| armed == place)) {
            // No message and no backtrace: the panic is wanted.
            std::panic::resume_unwind(Box::new("wanted"));
        }
    }

    fn pay(&mut self, cx: &mut Context<'_>) {
        while self.owed > 0 {
            let from = self.many - self.owed;
            let n = self.owed.min(cx.output_space()).min(8192);
            if n == 0 {
                return cx.want_writable();
            }
            let bytes: Vec<u8> = (from..from + n).map(|i| b'a' + ((i ^ (i >> 7) ^ (i >> 13)) % 26) as u8).collect();
            assert_eq!(cx.write(&bytes), n);
            self.owed -= n;
        }
        if self.ending {
            cx.close();
        }
    }
}

impl Handler for Lines {
    type Conn = Conn;
    type Mail = Mail;

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> Conn {
        self.first.get_or_insert(cx.token());
        self.tell(Told::Opened(cx.token()));
        Conn { token: cx.token(), owed: 0, many: 0, panic_in: None, ending: false }
    }

    fn input(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        if conn.owed > 0 {
            cx.want_writable();
            return 0;
        }
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return 0 };
        let line = &input[..end];
        let mut words = std::str::from_utf8(line).unwrap_or("").split(' ');
        match (words.next(), words.next()) {
            (Some("pause"), _) => {
                cx.pause();
                self.tell(Told::Paused(conn.token));
            }
            (Some("close"), _) => {
                cx.write(b"bye\n");
                cx.close();
            }
            (Some("abort"), _) => cx.abort(),
            (Some("many"), Some(bytes)) => {
                conn.many = bytes.parse().expect("the test writes a number");
                conn.owed = conn.many;
                conn.pay(cx);
            }
            (Some("wake"), _) => {
                cx.wake(self.first.expect("one was opened first"));
                cx.write(b"wake\n");
            }
            (Some("deadline"), Some(millis)) => {
                let millis = millis.parse().expect("the test writes a number");
                cx.deadline(Some(cx.now() + std::time::Duration::from_millis(millis)));
                cx.write(b"set\n");
            }
            (Some("panic"), Some(place)) => {
                conn.panic_in = Some(place.to_owned());
                cx.write(b"lost\n");
                conn.panic_if("input");
                match place {
                    "room" => cx.wake(conn.token),
                    "deadline" => cx.deadline(Some(cx.now())),
                    "closed" => cx.close(),
                    _ => {}
                }
                self.tell(Told::Paused(conn.token)); // Armed.
            }
            _ => {
                if cx.output_space() < line.len() + 1 {
                    cx.want_writable();
                    return 0;
                }
                cx.write(&input[..end + 1]);
            }
        }
        end + 1
    }

    fn ended(&mut self, conn: &mut Conn, rest_bytes: usize, cx: &mut Context<'_>) {
        self.tell(Told::Ended { rest_bytes });
        conn.panic_if("ended");
        conn.ending = true;
        conn.pay(cx);
    }

    fn writable(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.panic_if("room");
        if conn.owed == 0 {
            self.tell(Told::Room(conn.token));
        }
        conn.pay(cx);
    }

    fn mail(&mut self, conn: &mut Conn, mail: Mail, cx: &mut Context<'_>) {
        conn.panic_if("mail");
        match mail {
            Mail::Resume => cx.resume(),
            Mail::Close => {
                cx.write(b"bye\n");
                cx.close();
            }
            Mail::Number(number) => {
                self.tell(Told::Delivered { to: conn.token, number });
                cx.write(format!("number {number}\n").as_bytes());
            }
        }
    }

    fn undelivered(&mut self, mail: Mail, _cx: &mut LoopContext<'_>) {
        if self.panics_over_undelivered {
            std::panic::resume_unwind(Box::new("wanted"));
        }
        if let Mail::Number(number) = mail {
            self.tell(Told::Undelivered(number));
        }
    }

    fn deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.panic_if("deadline");
        self.tell(Told::Deadline(conn.token));
        cx.write(b"deadline\n");
    }

    fn pressed(&mut self, conn: &mut Conn, pressure: Pressure, cx: &mut Context<'_>) {
        self.tell(Told::Pressed(conn.token, pressure));
        conn.panic_if("pressed");
        cx.write(self.goodbye.as_bytes());
        cx.close();
    }

    fn panicked(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.panic_if("panicked");
        cx.write(b"sorry\n");
    }

    fn closed(&mut self, conn: Conn, reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.tell(Told::Closed(conn.token, reason));
        conn.panic_if("closed");
    }
}

/// The next thing told; fails when none comes.
#[track_caller]
pub fn next(heard: &Receiver<Told>) -> Told {
    heard.recv_timeout(super::PATIENCE).expect("the loop tells something")
}

/// Waits for something in particular, and passes over everything before.
#[track_caller]
pub fn wait_for<T>(heard: &Receiver<Told>, mut wanted: impl FnMut(Told) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(next(heard)) {
            return found;
        }
    }
}

/// Waits for the close of a connection, and says why it closed.
#[track_caller]
pub fn wait_for_close(heard: &Receiver<Told>, of: Token) -> CloseReason {
    wait_for(heard, |told| match told {
        Told::Closed(token, reason) if token == of => Some(reason),
        _ => None,
    })
}

/// Waits for the next connection.
#[track_caller]
pub fn wait_for_open(heard: &Receiver<Told>) -> Token {
    wait_for(heard, |told| match told {
        Told::Opened(token) => Some(token),
        _ => None,
    })
}
