//! 9,500 clients that send a byte of a head every five seconds and come back when they are closed, and 50 newcomers per second next to them
//! from the first moment on (`slowloris`).
//!
//! The question is what part of the newcomers is served, and how soon, second by second. Who is told 503, or nothing, is not served.
//! The server's descriptor limit belongs into its command: `prlimit --nofile=9000 server …`.

use std::io;
use std::time::{Duration, Instant};

use loadtest::units::{as_us, microseconds};

use crate::client::{Client, Found, LAST_REQUEST};
use crate::target::Target;
use crate::{Args, median};

const HEAD_BEGUN: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nX: ";
const BYTE: &[u8] = b"a";
const BYTE_EVERY: Duration = Duration::from_secs(5);
/// Not faster than any server can accept on half of two cores: a flood of connects is another adversity.
const SLOW_CONNECTS_PER_SECOND: u32 = 4000;
/// Slow clients looked at between two looks at the newcomers: about 10 µs.
const LOOKS_PER_STEP: usize = 8;
const NEWCOMER_EVERY: Duration = Duration::from_millis(20);
/// A newcomer that has nothing after this gets nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A slow client; none while it waits for its turn to come back.
struct Slow {
    client: Option<Client>,
    byte_due: Instant,
}

/// The slow clients.
#[derive(Default)]
struct Attack {
    all: Vec<Slow>,
    /// Which to look at next.
    next: usize,
    connects: u32,
    closed: u64,
    told: u64,
}

/// The newcomers that came in one second.
#[derive(Clone, Debug, Default)]
struct Second {
    came: u64,
    told: u64,
    ended: u64,
    nothing: u64,
    /// How long after it was due a newcomer began at worst: this program's own share.
    late_us_max: u64,
    served_us: Vec<u64>,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        let seconds = round(&target, args.connections.unwrap_or(9500), args.time)?;
        let mut all = Second::default();
        for second in seconds {
            all.came += second.came;
            all.told += second.told;
            all.ended += second.ended;
            all.nothing += second.nothing;
            all.late_us_max = all.late_us_max.max(second.late_us_max);
            all.served_us.extend(second.served_us);
        }
        print("all newcomers", all);
    }
    Ok(())
}

fn round(target: &Target, connections: usize, time: Duration) -> io::Result<Vec<Second>> {
    let begun = Instant::now();
    let mut attack = Attack { all: (0..connections).map(|_| Slow { client: None, byte_due: begun }).collect(), ..Attack::default() };
    let mut seconds = vec![Second::default(); time.as_secs().max(1) as usize];
    let mut newcomers: Vec<(Client, Instant)> = Vec::new();
    let mut newcomer_due = begun;
    loop {
        let now = Instant::now();
        let is_over = now >= begun + time;
        if is_over && newcomers.is_empty() {
            break;
        }
        while newcomer_due <= now && newcomer_due < begun + time {
            let mut client = Client::connect(target.address, 7)?;
            client.send(LAST_REQUEST)?;
            newcomers.push((client, newcomer_due));
            let second = &mut seconds[second_of(begun, newcomer_due, time)];
            second.came += 1;
            second.late_us_max = second.late_us_max.max(as_us(newcomer_due.elapsed()));
            newcomer_due += NEWCOMER_EVERY;
        }
        newcomers.retain_mut(|(client, due)| {
            let second = &mut seconds[second_of(begun, *due, time)];
            match client.look() {
                Found::Nothing if due.elapsed() < PATIENCE => return true,
                Found::Nothing => second.nothing += 1,
                Found::Answer(200) => second.served_us.push(as_us(due.elapsed())),
                Found::Answer(_) => second.told += 1,
                Found::End => second.ended += 1,
            }
            false
        });
        attack.step(target, begun, now)?;
    }
    for (index, second) in seconds.iter().enumerate() {
        print(&format!("second {}", index + 1), second.clone());
    }
    let open = attack.all.iter().filter(|slow| slow.client.is_some()).count();
    println!(
        "slow: {} connects, {} closed by the server, {} of them told; {open} open at the end",
        attack.connects, attack.closed, attack.told
    );
    Ok(seconds)
}

fn second_of(begun: Instant, at: Instant, time: Duration) -> usize {
    ((at - begun).as_secs() as usize).min(time.as_secs().max(1) as usize - 1)
}

impl Attack {
    /// Looks at the next few.
    fn step(&mut self, target: &Target, begun: Instant, now: Instant) -> io::Result<()> {
        for _ in 0..LOOKS_PER_STEP.min(self.all.len()) {
            self.next = (self.next + 1) % self.all.len();
            let slow = &mut self.all[self.next];
            let Some(client) = &mut slow.client else {
                if begun + Duration::from_secs(1) / SLOW_CONNECTS_PER_SECOND * self.connects <= now {
                    let mut client = Client::connect(target.address, 6)?;
                    client.send(HEAD_BEGUN)?;
                    (slow.client, slow.byte_due) = (Some(client), now + BYTE_EVERY);
                    self.connects += 1;
                }
                continue;
            };
            let found = match client.look() {
                // A write to a connection that the server has closed fails; what the server said before lies there to be read next.
                Found::Nothing if slow.byte_due <= now => {
                    slow.byte_due += BYTE_EVERY;
                    let _ = client.send(BYTE);
                    continue;
                }
                Found::Nothing => continue,
                found => found,
            };
            self.closed += 1;
            self.told += u64::from(matches!(found, Found::Answer(_)));
            slow.client = None;
        }
        Ok(())
    }
}

fn print(name: &str, mut second: Second) {
    second.served_us.sort_unstable();
    let served = second.served_us.len() as u64;
    let p99 = second.served_us.get((second.served_us.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
    println!(
        "{name}: {served} of {} served ({:.1} %), median {}, p99 {}, worst {}; {} told, {} ended, {} got nothing; late at most {}",
        second.came,
        if second.came == 0 { 0.0 } else { served as f64 / second.came as f64 * 100.0 },
        microseconds(median(second.served_us.clone())),
        microseconds(p99),
        microseconds(second.served_us.last().copied().unwrap_or(0)),
        second.told,
        second.ended,
        second.nothing,
        microseconds(second.late_us_max),
    );
}
