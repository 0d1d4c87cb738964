//! The mailbox over the real channel: permit, wakes, both ends going away. What depends on the interleaving is in `loom_tests.rs`.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::*;

#[derive(Default)]
struct Wakes {
    calls: AtomicU32,
    fail: std::sync::atomic::AtomicBool,
}

impl Wake for Wakes {
    fn wake(&self) -> io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.fail.load(Ordering::Relaxed) { Err(io::Error::other("no")) } else { Ok(()) }
    }
}

fn with_capacity(capacity: u32) -> (Sender<u32>, Inbox<u32>, Arc<Wakes>) {
    let wakes = Arc::new(Wakes::default());
    let (sender, inbox) = mailbox(capacity, wakes.clone());
    (sender, inbox, wakes)
}

fn send(sender: &Sender<u32>, mail: u32) {
    sender.reserve().expect("there is permit").send(mail).expect("the loop is there");
}

#[test]
fn permits_are_bounded_and_come_back_when_dropped_or_taken() {
    let (sender, mut inbox, _) = with_capacity(2);
    let first = sender.reserve().expect("of two");
    let second = sender.clone().reserve().expect("of two, over all clones");
    assert!(sender.reserve().is_none());
    drop(second);
    let second = sender.reserve().expect("given back");
    first.send(1).expect("the loop is there");
    assert!(sender.reserve().is_none(), "mail on its way still takes permit");
    assert_eq!(inbox.take(), Some(1));
    let third = sender.reserve().expect("taken");
    assert!(sender.reserve().is_none());
    second.send(2).expect("the loop is there");
    third.send(3).expect("the loop is there");
    assert_eq!((inbox.take(), inbox.take(), inbox.take()), (Some(2), Some(3), None));
}

#[test]
fn a_burst_costs_one_wake_and_the_next_one_another() {
    let (sender, mut inbox, wakes) = with_capacity(100);
    for mail in 0..50 {
        send(&sender, mail);
    }
    assert_eq!(wakes.calls.load(Ordering::Relaxed), 1);
    inbox.start_emptying();
    assert_eq!(inbox.take(), Some(0));
    send(&sender, 50);
    send(&sender, 51);
    assert_eq!(wakes.calls.load(Ordering::Relaxed), 2, "it came after the clearing: the loop may already have looked");
    assert_eq!(std::iter::from_fn(|| inbox.take()).collect::<Vec<_>>(), (1..52).collect::<Vec<_>>());
}

#[test]
fn mail_for_a_loop_that_has_ended_comes_back() {
    let (sender, inbox, wakes) = with_capacity(3);
    let permit = sender.reserve().expect("there is permit");
    send(&sender, 1);
    drop(inbox);
    assert_eq!(permit.send(7), Err(7));
    assert_eq!(wakes.calls.load(Ordering::Relaxed), 1, "nobody is woken for mail that was not sent");
    if let Some(permit) = sender.reserve() {
        assert_eq!(permit.send(8), Err(8));
    }
}

#[test]
fn mail_that_was_not_taken_is_dropped_with_the_loop() {
    let wakes = Arc::new(Wakes::default());
    let (sender, inbox) = mailbox(2, wakes);
    let mail = Arc::new(());
    sender.reserve().expect("there is permit").send(mail.clone()).expect("the loop is there");
    drop(inbox);
    assert_eq!(Arc::strong_count(&mail), 1, "a drop guard in the mail must run, though senders are left");
    drop(sender);
}

#[test]
fn a_waker_that_fails_loses_no_mail_and_is_tried_again() {
    let (sender, mut inbox, wakes) = with_capacity(4);
    wakes.fail.store(true, Ordering::Relaxed);
    send(&sender, 1);
    send(&sender, 2);
    // A sender tries twice. Both failures leave the loop asleep, so the second sender tries too.
    assert_eq!(wakes.calls.load(Ordering::Relaxed), 4);
    wakes.fail.store(false, Ordering::Relaxed);
    send(&sender, 3);
    send(&sender, 4);
    assert_eq!(wakes.calls.load(Ordering::Relaxed), 5);
    inbox.start_emptying();
    assert_eq!(std::iter::from_fn(|| inbox.take()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

/// The poll of a loop that only mail wakes.
#[derive(Default)]
struct Sleep {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Sleep {
    fn wake(&self) -> io::Result<()> {
        *self.woken.lock().expect("nobody panics with it") = true;
        self.changed.notify_one();
        Ok(())
    }
}

#[test]
fn a_loop_that_sleeps_whenever_it_may_gets_all_mail_of_all_threads_in_order() {
    const SENDERS: u32 = 4;
    const MAILS: u32 = 20_000;
    let sleep = Arc::new(Sleep::default());
    let (sender, mut inbox) = mailbox::<(u32, u32)>(16, sleep.clone());
    let threads: Vec<_> = (0..SENDERS)
        .map(|id| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..MAILS {
                    let permit = loop {
                        match sender.reserve() {
                            Some(permit) => break permit,
                            None => std::thread::yield_now(),
                        }
                    };
                    permit.send((id, number)).expect("the loop is there");
                }
            })
        })
        .collect();
    let mut next = [0; SENDERS as usize];
    let mut mail_waits = false;
    while next.iter().sum::<u32>() < SENDERS * MAILS {
        if !mail_waits {
            let woken = sleep.woken.lock().expect("nobody panics with it");
            *sleep.changed.wait_while(woken, |woken| !*woken).expect("nobody panics with it") = false;
        }
        inbox.start_emptying();
        mail_waits = true;
        for _ in 0..5 {
            let Some((id, number)) = inbox.take() else {
                mail_waits = false;
                break;
            };
            assert_eq!(number, next[id as usize]);
            next[id as usize] += 1;
        }
    }
    for thread in threads {
        thread.join().expect("no sender panics");
    }
    assert!(inbox.take().is_none());
    let permits: Vec<_> = std::iter::from_fn(|| sender.reserve()).collect();
    assert_eq!(permits.len(), 16, "all permit came back");
}
