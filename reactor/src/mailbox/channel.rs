//! What the mailbox asks of a channel: crossbeam's, or under loom a model that promises no more than any correct channel does.

#[cfg(not(loom))]
pub(crate) use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

#[cfg(loom)]
pub(crate) use model::{Receiver, Sender, TrySendError, bounded};

/// A ring of places, each with a flag that says "mail lies here". Only that flag orders sender and receiver, by release and acquire;
/// one lock around a queue would order much more than that, and hide a missing order in the mailbox itself.
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

    struct Ring<T> {
        places: Vec<(AtomicBool, Mutex<Option<T>>)>,
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
            places: (0..capacity).map(|_| (AtomicBool::new(false), Mutex::new(None))).collect(),
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
            let (is_here, place) = &self.0.places[tail % self.0.places.len()];
            if is_here.load(Ordering::Acquire) {
                return Err(TrySendError::Full(mail));
            }
            *place.lock().expect("no model panics while it holds a place") = Some(mail);
            is_here.store(true, Ordering::Release);
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, ()> {
            let (is_here, place) = &self.ring.places[self.head.get() % self.ring.places.len()];
            if !is_here.load(Ordering::Acquire) {
                return Err(());
            }
            let mail = place.lock().expect("no model panics while it holds a place").take();
            is_here.store(false, Ordering::Release);
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
