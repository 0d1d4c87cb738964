//! What the mailbox asks of a channel: crossbeam's, or under loom a model that promises no more than any correct channel does.

#[cfg(not(loom))]
pub(crate) use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

#[cfg(loom)]
pub(crate) use model::{Receiver, Sender, TrySendError, bounded};

/// A ring of places. Only two flags of each place order sender and receiver, by release and acquire; one lock around a queue would
/// order much more than that, and hide a missing order in the mailbox itself. Two and not one, because loom looks for other
/// orders only of the last two accesses to an atomic: a sender's look at the flag that it then sets would hide the receiver's.
#[cfg(loom)]
mod model {
    use loom::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };
    use std::cell::Cell;

    pub(crate) enum TrySendError<T> {
        Full(T),
        Disconnected(T),
    }

    struct Place<T> {
        is_free: AtomicBool,
        is_full: AtomicBool,
        mail: Mutex<Option<T>>,
    }

    struct Ring<T> {
        places: Vec<Place<T>>,
        tail: AtomicUsize,
        disconnected: AtomicBool,
    }

    pub(crate) struct Sender<T>(Arc<Ring<T>>);

    pub(crate) struct Receiver<T> {
        ring: Arc<Ring<T>>,
        head: Cell<usize>,
    }

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let ring = Arc::new(Ring {
            places: (0..capacity)
                .map(|_| Place { is_free: AtomicBool::new(true), is_full: AtomicBool::new(false), mail: Mutex::new(None) })
                .collect(),
            tail: AtomicUsize::new(0),
            disconnected: AtomicBool::new(false),
        });
        (Sender(ring.clone()), Receiver { ring, head: Cell::new(0) })
    }

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, mail: T) -> Result<(), TrySendError<T>> {
            if self.0.disconnected.load(Ordering::Acquire) {
                return Err(TrySendError::Disconnected(mail));
            }
            let tail = self.0.tail.fetch_add(1, Ordering::Relaxed);
            let place = &self.0.places[tail % self.0.places.len()];
            if !place.is_free.load(Ordering::Acquire) {
                return Err(TrySendError::Full(mail));
            }
            place.is_free.store(false, Ordering::Relaxed);
            *place.mail.lock().expect("no model panics while it holds a place") = Some(mail);
            place.is_full.store(true, Ordering::Release);
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, ()> {
            let place = &self.ring.places[self.head.get() % self.ring.places.len()];
            if !place.is_full.load(Ordering::Acquire) {
                return Err(());
            }
            let mail = place.mail.lock().expect("no model panics while it holds a place").take();
            place.is_full.store(false, Ordering::Relaxed);
            place.is_free.store(true, Ordering::Release);
            self.head.set(self.head.get() + 1);
            mail.ok_or(())
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.ring.disconnected.store(true, Ordering::Release);
        }
    }
}
