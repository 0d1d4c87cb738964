//! Buffers that connections lease while they hold an unfinished message or unsent output, and at no other time.
//!
//! 10,000 idle connections with a buffer each would be hundreds of megabytes (failure mode L5). Here they share one pool per loop,
//! with a byte limit, and what a peak made it allocate is freed again when it has not been used for a while. A lease is bytes and two
//! positions; giving it back is the owner's duty, since a lease that knew its pool would need a pointer in each connection.
//! Read next: `drain_read.rs`, `drain_write.rs`.

/// A small rest: an unfinished request head. One page.
const SMALL_BYTES: u32 = 4 << 10;
/// An unfinished larger head, or the tail of an answer.
const MIDDLE_BYTES: u32 = 16 << 10;

/// A part of a buffer is filled: `start..end`. 24 bytes, also as an `Option`.
#[derive(Debug)]
#[must_use = "a lease must be given back to its pool"]
pub(crate) struct Lease {
    bytes: Box<[u8]>,
    start: u32,
    end: u32,
}

const _: () = assert!(size_of::<Option<Lease>>() == 24, "each connection has two of them: see the budget of 192 bytes");

impl Lease {
    /// What was appended and not yet consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    /// How many bytes that is.
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether all is consumed: time to give the lease back.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes it can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// How many more bytes [`Lease::append`] takes.
    pub(crate) fn room(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Appends what fits of `bytes`, and returns how many that were. Moves the content to the front only if it must, so at most once
    /// for each call.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        if n > self.capacity() - self.end as usize {
            self.bytes.copy_within(self.start as usize..self.end as usize, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let end = self.end as usize;
        self.bytes[end..end + n].copy_from_slice(&bytes[..n]);
        self.end += n as u32;
        n
    }

    /// Counts the first `n` filled bytes as used.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "{n} bytes consumed of {}", self.len());
        self.start += n as u32;
        if self.start == self.end {
            (self.start, self.end) = (0, 0); // Free: nothing has to be moved for this room.
        }
    }
}

/// The pool has no room for more. What was to be appended is still the caller's, and the lease is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One size of buffers.
#[derive(Debug)]
struct Class {
    buffer_bytes: u32,
    /// Given back and not leased again. The last one is the warmest in the cache, so it goes first.
    free: Vec<Box<[u8]>>,
    /// The shortest that `free` was since the last [`BufferPool::trim`]: so many were never needed.
    free_low_water: usize,
}

/// The buffers of one loop.
#[derive(Debug)]
pub(crate) struct BufferPool {
    /// By size, ascending.
    classes: Vec<Class>,
    memory_bytes_max: usize,
    leased_bytes: usize,
    free_bytes: usize,
}

impl BufferPool {
    /// A pool that never holds more than `memory_bytes_max`, in buffers of 4 KiB, 16 KiB and `buffer_bytes_max`. It allocates when asked.
    pub(crate) fn new(memory_bytes_max: usize, buffer_bytes_max: u32) -> BufferPool {
        let mut sizes: Vec<u32> = [SMALL_BYTES, MIDDLE_BYTES].into_iter().filter(|&bytes| bytes < buffer_bytes_max).collect();
        sizes.push(buffer_bytes_max);
        let classes = sizes.into_iter().map(|buffer_bytes| Class { buffer_bytes, free: Vec::new(), free_low_water: 0 }).collect();
        BufferPool { classes, memory_bytes_max, leased_bytes: 0, free_bytes: 0 }
    }

    /// An empty lease of at least `bytes_min`, of the smallest size that fits. `None` if the limit is reached even when all free buffers of
    /// other sizes are given up.
    pub(crate) fn lease(&mut self, bytes_min: usize) -> Option<Lease> {
        let Some(index) = self.class_for(bytes_min) else { return self.lease_oversized(bytes_min) };
        let buffer_bytes = self.classes[index].buffer_bytes as usize;
        let bytes = match self.classes[index].take_free() {
            Some(bytes) => {
                self.free_bytes -= buffer_bytes;
                bytes
            }
            None => {
                if self.leased_bytes + buffer_bytes > self.memory_bytes_max {
                    return None;
                }
                self.drop_free_for(buffer_bytes);
                vec![0; buffer_bytes].into_boxed_slice()
            }
        };
        self.leased_bytes += buffer_bytes;
        Some(Lease { bytes, start: 0, end: 0 })
    }

    /// A lease larger than the largest size, rounded up to a power of two, and freed when it is given back. Neither the scratch nor the water
    /// marks let anybody need one; who goes beyond the marks finds the limit of the pool behind them.
    #[cold]
    fn lease_oversized(&mut self, bytes_min: usize) -> Option<Lease> {
        let buffer_bytes = u32::try_from(bytes_min).ok()?.checked_next_power_of_two()? as usize;
        if self.leased_bytes + buffer_bytes > self.memory_bytes_max {
            return None;
        }
        self.drop_free_for(buffer_bytes);
        self.leased_bytes += buffer_bytes;
        Some(Lease { bytes: vec![0; buffer_bytes].into_boxed_slice(), start: 0, end: 0 })
    }

    /// Takes a lease back, and what it holds is gone.
    pub(crate) fn give_back(&mut self, lease: Lease) {
        let Lease { bytes, .. } = lease;
        self.leased_bytes -= bytes.len();
        let Some(index) = self.class_for(bytes.len()) else { return };
        self.free_bytes += bytes.len();
        self.classes[index].free.push(bytes);
    }

    /// Appends all of `bytes` to what `lease` holds: leases a buffer if there is none, and moves to a larger one if needed.
    ///
    /// # Errors
    /// [`Full`], and then nothing has changed.
    pub(crate) fn append(&mut self, lease: &mut Option<Lease>, bytes: &[u8]) -> Result<(), Full> {
        let held: &[u8] = match lease {
            Some(lease) if lease.room() >= bytes.len() => {
                lease.append(bytes);
                return Ok(());
            }
            Some(lease) => lease.filled(),
            None if bytes.is_empty() => return Ok(()),
            None => &[],
        };
        let mut larger = self.lease(held.len() + bytes.len()).ok_or(Full)?;
        larger.append(held);
        larger.append(bytes);
        if let Some(smaller) = lease.replace(larger) {
            self.give_back(smaller);
        }
        Ok(())
    }

    /// Frees the buffers that nobody has needed since the last call. Called about once a second: a burst keeps its buffers while it
    /// lasts, and the memory goes back after it.
    pub(crate) fn trim(&mut self) {
        for class in &mut self.classes {
            // From the front: the coldest.
            let freed = class.free.drain(..class.free_low_water).count();
            self.free_bytes -= freed * class.buffer_bytes as usize;
            class.free_low_water = class.free.len();
        }
    }

    /// Bytes of all leases now, as buffers, however little is in them.
    pub(crate) fn leased_bytes(&self) -> usize {
        self.leased_bytes
    }

    /// Bytes of all buffers that the pool has allocated, leased or free. At most the limit.
    pub(crate) fn held_bytes(&self) -> usize {
        self.leased_bytes + self.free_bytes
    }

    fn class_for(&self, bytes_min: usize) -> Option<usize> {
        self.classes.iter().position(|class| class.buffer_bytes as usize >= bytes_min)
    }

    /// Drops free buffers, the largest first, until another one of `buffer_bytes` fits under the limit.
    fn drop_free_for(&mut self, buffer_bytes: usize) {
        for class in self.classes.iter_mut().rev() {
            while self.leased_bytes + self.free_bytes + buffer_bytes > self.memory_bytes_max && class.take_free().is_some() {
                self.free_bytes -= class.buffer_bytes as usize;
            }
        }
    }
}

impl Class {
    fn take_free(&mut self) -> Option<Box<[u8]>> {
        let bytes = self.free.pop()?;
        self.free_low_water = self.free_low_water.min(self.free.len());
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 200 << 10;
    const LARGE: u32 = 64 << 10;

    fn bytes_from(seed: u8, n: usize) -> Vec<u8> {
        (0..n).map(|i| seed.wrapping_add(i as u8).wrapping_mul(31)).collect()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append { owner: usize, seed: u8, n: usize },
        Consume { owner: usize, part: f64 },
        GiveBack { owner: usize },
        Trim,
    }

    fn ops() -> impl Strategy<Value = Op> {
        let owners = 0..6usize;
        let sizes = prop_oneof![0..200usize, 3000..5000usize, 0..70_000usize];
        prop_oneof![
            5 => (owners.clone(), any::<u8>(), sizes).prop_map(|(owner, seed, n)| Op::Append { owner, seed, n }),
            3 => (owners.clone(), 0.0..=1.0f64).prop_map(|(owner, part)| Op::Consume { owner, part }),
            1 => owners.prop_map(|owner| Op::GiveBack { owner }),
            1 => Just(Op::Trim),
        ]
    }

    proptest! {
        #[test]
        fn every_owner_reads_back_what_it_wrote_and_the_account_is_right(ops in prop::collection::vec(ops(), 1..150)) {
            let mut pool = BufferPool::new(LIMIT, LARGE);
            let mut leases: [Option<Lease>; 6] = Default::default();
            let mut model: [Vec<u8>; 6] = Default::default();
            for op in ops {
                match op {
                    Op::Append { owner, seed, n } => {
                        let bytes = bytes_from(seed, n);
                        match pool.append(&mut leases[owner], &bytes) {
                            Ok(()) => model[owner].extend(&bytes),
                            // It may refuse only what needs a buffer that does not exist, or one for which there is no room.
                            Err(Full) => {
                                let needed = model[owner].len() + n;
                                let class = [SMALL_BYTES, MIDDLE_BYTES, LARGE].map(|bytes| bytes as usize).into_iter().find(|&bytes| bytes >= needed);
                                prop_assert!(pool.leased_bytes() + class.unwrap_or(needed.next_power_of_two()) > LIMIT);
                            }
                        }
                    }
                    Op::Consume { owner, part } => {
                        if let Some(lease) = &mut leases[owner] {
                            let n = (lease.len() as f64 * part) as usize;
                            lease.consume(n);
                            model[owner].drain(..n);
                        }
                    }
                    Op::GiveBack { owner } => {
                        if let Some(lease) = leases[owner].take() {
                            pool.give_back(lease);
                            model[owner].clear();
                        }
                    }
                    Op::Trim => pool.trim(),
                }
                for (lease, bytes) in leases.iter().zip(&model) {
                    prop_assert_eq!(lease.as_ref().map_or(&[][..], Lease::filled), bytes);
                    prop_assert!(lease.as_ref().is_none_or(|lease| lease.is_empty() == bytes.is_empty() && lease.room() + bytes.len() == lease.capacity()));
                }
                let leased_bytes: usize = leases.iter().flatten().map(Lease::capacity).sum();
                let free_bytes: usize = pool.classes.iter().flat_map(|class| &class.free).map(|bytes| bytes.len()).sum();
                prop_assert_eq!(pool.leased_bytes(), leased_bytes);
                prop_assert_eq!(pool.held_bytes(), leased_bytes + free_bytes);
                prop_assert!(pool.held_bytes() <= LIMIT);
            }
            for lease in leases.into_iter().flatten() {
                pool.give_back(lease);
            }
            pool.trim();
            pool.trim();
            prop_assert_eq!(pool.held_bytes(), 0);
        }
    }

    #[test]
    fn a_lease_is_of_the_smallest_size_that_fits() {
        let mut pool = BufferPool::new(1 << 20, LARGE);
        for (bytes_min, capacity) in [(0, 4096), (4096, 4096), (4097, 16384), (16385, 65536), (65536, 65536), (65537, 131_072)] {
            assert_eq!(pool.lease(bytes_min).map(|lease| lease.capacity()), Some(capacity));
        }
        let mut small_pool = BufferPool::new(1 << 20, 4096);
        assert_eq!(small_pool.lease(1).map(|lease| lease.capacity()), Some(4096));
        assert!(small_pool.lease((1 << 20) + 1).is_none(), "not beyond the limit");
    }

    #[test]
    fn free_buffers_of_other_sizes_make_way_and_leases_do_not() {
        let mut pool = BufferPool::new(64 << 10, LARGE);
        let smalls: Vec<_> = (0..16).map(|_| pool.lease(1).expect("16 × 4 KiB fit")).collect();
        assert!(pool.lease(1).is_none());
        let mut smalls = smalls.into_iter();
        let kept = smalls.next().expect("of 16");
        smalls.for_each(|lease| pool.give_back(lease));
        assert!(pool.lease(LARGE as usize).is_none(), "a lease of 4 KiB is in its way");
        assert_eq!(pool.held_bytes(), 64 << 10, "nothing is given up in vain");
        pool.give_back(kept);
        let large = pool.lease(LARGE as usize).expect("all else is free");
        assert_eq!((pool.leased_bytes(), pool.held_bytes()), (64 << 10, 64 << 10));
        pool.give_back(large);
    }

    #[test]
    fn a_refused_append_leaves_the_lease_as_it_was() {
        let mut pool = BufferPool::new(16 << 10, 16 << 10);
        let mut lease = None;
        assert_eq!(pool.append(&mut lease, &bytes_from(1, 4000)), Ok(()));
        assert_eq!(pool.append(&mut lease, &bytes_from(2, 4000)), Err(Full), "16 KiB beside the 4 KiB would be over the limit");
        assert_eq!(lease.as_ref().map(Lease::filled), Some(&bytes_from(1, 4000)[..]));
        assert_eq!(pool.leased_bytes(), 4096);
        assert_eq!(pool.append(&mut lease, &[7; 96]), Ok(()), "what fits still fits");
    }

    #[test]
    fn appending_nothing_leases_nothing() {
        let mut pool = BufferPool::new(LIMIT, LARGE);
        let mut lease = None;
        assert_eq!(pool.append(&mut lease, &[]), Ok(()));
        assert!(lease.is_none());
    }

    #[test]
    fn after_a_peak_the_memory_goes_back_but_not_what_is_still_used() {
        let mut pool = BufferPool::new(1 << 20, LARGE);
        let peak: Vec<_> = (0..100).map(|_| pool.lease(1).expect("there is room")).collect();
        peak.into_iter().for_each(|lease| pool.give_back(lease));
        pool.trim();
        assert_eq!(pool.held_bytes(), 100 * 4096, "all of them were used since the last call");
        for _ in 0..1000 {
            let pair = [pool.lease(1).expect("there is room"), pool.lease(1).expect("there is room")];
            pair.into_iter().for_each(|lease| pool.give_back(lease));
        }
        pool.trim();
        assert_eq!(pool.held_bytes(), 2 * 4096, "two at a time were enough");
        pool.trim();
        assert_eq!(pool.held_bytes(), 0);
    }
}
