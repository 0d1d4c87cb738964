//! The channel from submitters to workers: bounded, never blocks a submitter; idle workers sleep in it.
//!
//! A build uses crossbeam's channel. Loom has no model of crossbeam, so a model check runs the same pool on a small channel that makes
//! the same four promises: first in, first out; a send wakes one sleeping receiver; a send after the last receiver is gone gives the
//! message back; messages that are left in the channel are dropped together with the last receiver.

#[cfg(not(loom))]
pub(crate) use crossbeam_channel::{Receiver, Sender, TrySendError};

/// What a submitter or another worker sends to the workers.
pub(crate) enum Message<T> {
    /// A job.
    Job(T),
    /// Another thread has moved a job from the channel into the ordered queue and left it there: a sleeping worker can run it.
    Wake,
    /// The pool is shutting down: look at its phase.
    Stop,
}

#[cfg(not(loom))]
pub(crate) fn bounded<T>(messages_max: usize) -> (Sender<Message<T>>, Receiver<Message<T>>) {
    crossbeam_channel::bounded(messages_max)
}

#[cfg(not(loom))]
pub(crate) fn unbounded<T>() -> (Sender<Message<T>>, Receiver<Message<T>>) {
    crossbeam_channel::unbounded()
}

#[cfg(loom)]
pub(crate) use model::{Receiver, Sender, TrySendError, bounded, unbounded};

#[cfg(loom)]
#[allow(clippy::unwrap_used)] // A poisoned lock in a model check is a failed check.
mod model {
    use std::collections::VecDeque;

    use loom::sync::{Arc, Condvar, Mutex};

    use super::Message;

    pub(crate) enum TrySendError<T> {
        Full(T),
        Disconnected(T),
    }

    #[derive(Debug)]
    pub(crate) struct Disconnected;

    struct Channel<T> {
        state: Mutex<State<T>>,
        arrived: Condvar,
    }

    struct State<T> {
        messages: VecDeque<T>,
        messages_max: usize,
        receiver_gone: bool,
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);

    /// Cannot be cloned: the pool shares a single receiver among its workers.
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn bounded<T>(messages_max: usize) -> (Sender<Message<T>>, Receiver<Message<T>>) {
        let state = State { messages: VecDeque::new(), messages_max, receiver_gone: false };
        let channel = Arc::new(Channel { state: Mutex::new(state), arrived: Condvar::new() });
        (Sender(channel.clone()), Receiver(channel))
    }

    pub(crate) fn unbounded<T>() -> (Sender<Message<T>>, Receiver<Message<T>>) {
        bounded(usize::MAX)
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.state.lock().unwrap();
            if state.receiver_gone {
                return Err(TrySendError::Disconnected(message));
            }
            if state.messages.len() >= state.messages_max {
                return Err(TrySendError::Full(message));
            }
            state.messages.push_back(message);
            drop(state);
            self.0.arrived.notify_one();
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, Disconnected> {
            let mut state = self.0.state.lock().unwrap();
            loop {
                match state.messages.pop_front() {
                    Some(message) => return Ok(message),
                    None => state = self.0.arrived.wait(state).unwrap(),
                }
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, Disconnected> {
            self.0.state.lock().unwrap().messages.pop_front().ok_or(Disconnected)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let mut state = self.0.state.lock().unwrap();
            state.receiver_gone = true;
            let unread = std::mem::take(&mut state.messages);
            // The lock first: dropping a message calls a job's `complete`.
            drop(state);
            drop(unread);
        }
    }
}
