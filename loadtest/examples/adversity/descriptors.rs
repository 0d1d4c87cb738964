//! The server may open 256 descriptors; 256 clients come and stay, 300 more wait; then 300 leave (`fd-exhaustion`).
//!
//! Two questions: how soon is a client answered that comes after that, and what became of those who waited. Refusals count as answers: a
//! client that is told 503 knows where it stands. The limit is lowered while the server runs, so that fitting to it does not hide it.

use std::io;
use std::time::{Duration, Instant};

use loadtest::units::{as_us, microseconds};

use crate::client::{Client, Found, LAST_REQUEST, REQUEST};
use crate::target::Target;
use crate::{Args, summary};

const STAY: usize = 256;
const WAIT: usize = 300;
const LEAVE: usize = 300;
/// After this, a client counts as forgotten.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of some clients.
#[derive(Clone, Copy, Debug, Default)]
struct Fates {
    served: usize,
    told: usize,
    dropped: usize,
    waiting: usize,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let (mut answered, mut served) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let target = Target::start(&args.server)?;
        crate::client::open_served(target.address, 1)?;
        loadtest::sys::limit_descriptors(target.pid, args.limit)?;
        let mut first = Clients::come(&target, STAY, true, args.silent)?;
        let first_fates = first.look_for(Duration::from_millis(500));
        let mut second = Clients::come(&target, WAIT, false, args.silent)?;
        // Not always the same phase of whatever pause the server makes.
        let before = second.look_for(Duration::from_millis(1000 + 170 * u64::from(round)));
        // First those who stay, then as many of those who wait as make the number full, answered or not.
        drop(first);
        second.all.drain(..LEAVE - STAY);
        let begun = Instant::now();
        let (first_answer, refusals) = new_client(&target, begun, &mut second)?;
        let after = second.look_for(PATIENCE);
        println!(
            "of {STAY}: {first_fates:?}; of {WAIT} more: {before:?}; after {LEAVE} left a new client was answered in {} and served in {} ({refusals} refusals); of the {} who waited on: {after:?}",
            microseconds(as_us(first_answer.answered)),
            first_answer.served.map_or_else(|| "never".to_owned(), |time| microseconds(as_us(time))),
            second.all.len(),
        );
        answered.push(as_us(first_answer.answered));
        served.push(as_us(first_answer.served.unwrap_or(PATIENCE)));
    }
    println!("{}; {}", summary("a new client answered", &answered), summary("served", &served));
    Ok(())
}

/// Clients with what they have been found to be.
struct Clients {
    all: Vec<(Option<Client>, Found)>,
    /// Whether they keep their connection after a 200.
    stay: bool,
    /// Whether they keep it also after a refusal; otherwise they leave then.
    silent: bool,
}

impl Clients {
    fn come(target: &Target, n: usize, stay: bool, silent: bool) -> io::Result<Clients> {
        let one = |_| {
            let mut client = Client::connect(target.address, 4)?;
            client.send(if stay { REQUEST } else { LAST_REQUEST })?;
            Ok((Some(client), Found::Nothing))
        };
        Ok(Clients { all: (0..n).map(one).collect::<io::Result<_>>()?, stay, silent })
    }

    /// Looks once at each of them.
    fn look(&mut self) -> Fates {
        let mut fates = Fates::default();
        for (client, found) in &mut self.all {
            if *found == Found::Nothing
                && let Some(connected) = client
            {
                *found = connected.look();
                let keeps = match *found {
                    Found::Nothing => true,
                    Found::Answer(200) => self.stay,
                    Found::Answer(_) => self.silent,
                    Found::End => false,
                };
                if !keeps {
                    *client = None;
                }
            }
            match found {
                Found::Nothing => fates.waiting += 1,
                Found::Answer(200) => fates.served += 1,
                Found::Answer(_) => fates.told += 1,
                Found::End => fates.dropped += 1,
            }
        }
        fates
    }

    /// Looks at all of them for at most `time`.
    fn look_for(&mut self, time: Duration) -> Fates {
        let until = Instant::now() + time;
        loop {
            let fates = self.look();
            if fates.waiting == 0 || Instant::now() > until {
                return fates;
            }
        }
    }
}

struct NewClient {
    answered: Duration,
    served: Option<Duration>,
}

/// A client that comes now, and comes again as long as it is refused. Those who wait go on looking.
fn new_client(target: &Target, begun: Instant, waiting: &mut Clients) -> io::Result<(NewClient, u32)> {
    let (mut answered, mut refusals) = (None, 0);
    loop {
        let mut client = Client::connect(target.address, 5)?;
        client.send(REQUEST)?;
        let found = loop {
            match client.look() {
                Found::Nothing if begun.elapsed() < PATIENCE => waiting.look(),
                found => break found,
            };
        };
        let time = begun.elapsed();
        let answered = *answered.get_or_insert(time);
        if found == Found::Answer(200) {
            return Ok((NewClient { answered, served: Some(time) }, refusals));
        }
        if time >= PATIENCE {
            return Ok((NewClient { answered, served: None }, refusals));
        }
        refusals += 1;
    }
}
