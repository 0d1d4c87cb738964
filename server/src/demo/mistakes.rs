//! All tables of deliberate mistakes joined: the loop's, the pool's and the server's own.
//!
//! Behind the feature `mistakes`, which changes nothing by itself: a mistake is made only with `--mistake SLUG`. Correct code does not
//! ask whether one is on. To fork without them, build with `--no-default-features`, or delete this file and the marked arms;
//! `rg 'MISTAKE\('` lists them. `tests/tidy.rs` holds everything together that one slug joins.

use reactor::policy::WhenNearlyFull;

use crate::config::Config;
use crate::connection::HeaderDeadline;
use crate::dispatch::Placement;
use crate::shutdown::ShutdownPolicy;

/// A slug, and what it changes.
pub type Mistake = (&'static str, fn(&mut Config));

/// The server's own mistakes.
pub const MISTAKES: &[Mistake] = &[
    ("loop-stall", |config| config.http.placement = Placement::Loop),
    ("file-stall", |config| config.http.placement = Placement::PoolForCpuOnly),
    // Two switches, because each of the two limits hides the lack of the other: with eviction, slow heads do not live long enough to
    // matter, and with an absolute limit for each head, their slots become free anyway.
    ("slowloris", |config| {
        config.http.header_deadline = HeaderDeadline::MovedByProgress;
        config.reactor.policy.when_nearly_full = WhenNearlyFull::Keep;
    }),
    ("ungraceful-shutdown", |config| config.shutdown = ShutdownPolicy::StopAtOnce),
];

/// The slugs that can be asked for. One belongs here when all that it joins exists: the marked line, the table entry, the scenario, the
/// test, the page and the row in the README.
pub const PUBLIC: &[&str] = &[
    "loop-stall",
    "file-stall",
    "pool-starvation",
    "edge-starvation",
    "firehose",
    "herd",
    "unbounded-queue",
    "thread-per-job",
    "departed-clients",
    "slow-consumer",
    "worker-panic",
    "partial-read",
    "partial-write",
    "slowloris",
    "early-close",
    "ungraceful-shutdown",
    "split-write",
    "fd-exhaustion",
];

/// A public mistake in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name, in every place where it has one.
    pub slug: &'static str,
    /// The file with the marked line.
    pub file: &'static str,
    /// What is done wrong.
    pub sentence: &'static str,
}

/// The public mistakes in words, in the order of [`PUBLIC`].
pub const DESCRIPTIONS: &[Description] = &[
    Description {
        slug: "loop-stall",
        file: "server/src/dispatch.rs",
        sentence: "jobs run on the event loop instead of the worker pool, and every other connection of that loop waits",
    },
    Description {
        slug: "file-stall",
        file: "server/src/dispatch.rs",
        sentence: "files are opened and read on the event loop, and when a disk takes its time, every other connection of that loop waits",
    },
    Description {
        slug: "pool-starvation",
        file: "worker-pool/src/resolved_config.rs",
        sentence: "jobs that block may take every thread of the worker pool, and fast jobs wait until one of them ends",
    },
    Description {
        slug: "edge-starvation",
        file: "reactor/src/io.rs",
        sentence: "a socket is read once for each edge-triggered event, and what is left in it makes no further event",
    },
    Description {
        slug: "firehose",
        file: "reactor/src/visit.rs",
        sentence: "a connection is read until it is empty, and one that sends faster than it is served keeps the loop for itself",
    },
    Description {
        slug: "herd",
        file: "reactor/src/listen/socket.rs",
        sentence: "all loops wait on one listening socket, and each new connection wakes them all",
    },
    Description {
        slug: "unbounded-queue",
        file: "worker-pool/src/resolved_config.rs",
        sentence: "the queue of the worker pool takes every job and forgets none, and at an overload all wait longer than their clients",
    },
    Description {
        slug: "thread-per-job",
        file: "worker-pool/src/worker.rs",
        sentence: "each job is given a thread of its own, and the clients decide how many there are",
    },
    Description {
        slug: "departed-clients",
        file: "worker-pool/src/queue.rs",
        sentence: "jobs of clients that have left are done all the same, and those who stay wait for it",
    },
    Description {
        slug: "slow-consumer",
        file: "reactor/src/progress.rs",
        sentence: "output that a client does not take is kept without a bound, and more is made and kept behind it",
    },
    Description {
        slug: "worker-panic",
        file: "worker-pool/src/worker.rs",
        sentence: "a job that panics ends its worker, is never answered and keeps its place, until no worker is left",
    },
    Description {
        slug: "partial-read",
        file: "reactor/src/visit.rs",
        sentence: "each read is taken for one message: half a request is forgotten, and so is what came behind a whole one",
    },
    Description {
        slug: "partial-write",
        file: "reactor/src/io.rs",
        sentence: "what a short write did not take is dropped, and large answers to slow clients have holes",
    },
    Description {
        slug: "slowloris",
        file: "server/src/connection.rs",
        sentence: "each byte of a request's head moves its deadline and nobody makes room: a byte now and then keeps a connection for ever",
    },
    Description {
        slug: "early-close",
        file: "reactor/src/close.rs",
        sentence: "a socket is closed with input unread, and the client gets a reset instead of the answer",
    },
    Description {
        slug: "ungraceful-shutdown",
        file: "server/src/shutdown.rs",
        sentence: "SIGTERM closes every connection as it is, with requests under way on them, and clients in the queue of the listener",
    },
    Description {
        slug: "split-write",
        file: "reactor/src/visit.rs",
        sentence: "head and body of an answer are two writes without TCP_NODELAY, and each answer waits 40 ms for a delayed acknowledgement",
    },
    Description {
        slug: "fd-exhaustion",
        file: "reactor/src/listen/accept.rs",
        sentence: "after EMFILE the listener is forgotten until its next event, and the clients in its queue hang",
    },
];

/// What a slug changes, and where.
#[derive(Clone, Copy, Debug)]
pub enum Switch {
    /// In every loop.
    Loop(fn(&mut reactor::Config)),
    /// In the worker pool.
    Pool(fn(&mut worker_pool::Config)),
    /// In the server.
    Server(fn(&mut Config)),
}

/// Every entry of every table, public or not.
pub fn all() -> impl Iterator<Item = (&'static str, Switch)> {
    let of_loop = reactor::MISTAKES.iter().map(|(slug, change)| (*slug, Switch::Loop(*change)));
    let of_pool = worker_pool::MISTAKES.iter().map(|(slug, change)| (*slug, Switch::Pool(*change)));
    let of_server = MISTAKES.iter().map(|(slug, change)| (*slug, Switch::Server(*change)));
    of_loop.chain(of_pool).chain(of_server)
}

/// Switches one mistake on, whether it is public or not.
///
/// # Errors
/// No table has the slug.
pub fn switch_on(slug: &str, config: &mut Config) -> Result<(), String> {
    let Some((slug, switch)) = all().find(|(found, _)| *found == slug) else {
        return Err(format!("no mistake is named {slug:?}"));
    };
    match switch {
        Switch::Loop(change) => change(&mut config.reactor),
        Switch::Pool(change) => change(&mut config.pool),
        Switch::Server(change) => change(config),
    }
    if !config.mistakes.contains(&slug) {
        config.mistakes.push(slug);
    }
    Ok(())
}

/// The public slug of this name, for the command line.
///
/// # Errors
/// A sentence that names the allowed ones.
pub fn public_slug(text: &str) -> Result<&'static str, String> {
    let found = PUBLIC.iter().find(|slug| **slug == text);
    found.copied().ok_or_else(|| format!("no such mistake; allowed: {}", PUBLIC.join(", ")))
}

/// What `--list-mistakes` prints: slug, owning file, sentence.
#[must_use]
pub fn list() -> String {
    let width = DESCRIPTIONS.iter().map(|description| description.slug.len()).max().unwrap_or_default();
    DESCRIPTIONS.iter().map(|Description { slug, file, sentence }| format!("{slug:width$}  {file}  {sentence}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_slug_is_in_two_tables() {
        let mut seen = HashSet::new();
        for (slug, _) in all() {
            assert!(seen.insert(slug), "{slug} is in two tables");
        }
    }

    #[test]
    fn each_public_slug_has_its_entry_and_its_words() {
        let described: Vec<&str> = DESCRIPTIONS.iter().map(|description| description.slug).collect();
        assert_eq!(described, PUBLIC);
        for slug in PUBLIC {
            assert!(all().any(|(found, _)| found == *slug), "{slug} is in no table");
        }
    }

    #[test]
    fn each_mistake_changes_the_configuration_and_says_so() {
        for (slug, _) in all() {
            let mut config = Config::default();
            switch_on(slug, &mut config).expect("it is in a table");
            assert_eq!(config.mistakes, [slug]);
            config.mistakes.clear();
            assert_ne!(format!("{config:?}"), format!("{:?}", Config::default()), "{slug} changes nothing: the default makes the mistake");
        }
    }
}
