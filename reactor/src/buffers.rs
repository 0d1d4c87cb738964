//! Buffers that connections lease while they hold an unfinished message or unsent output, and at no other time.
//!
//! 10,000 idle connections with a buffer each would need hundreds of megabytes. Here they share one pool per loop with a byte limit. Buffers that a
//! peak has allocated are freed when they have not been used for about a second. A lease has no pointer to its pool, which would cost 8 bytes in
//! each connection, so its holder must give it back.
//!
//! The memory has two owners, partial input and pending output, and each has a guaranteed share. Without the shares, clients that do not read fill
//! the pool with their output, and a request that arrives in two pieces finds no buffer. The space that one connection is offered shrinks as its
//! owner's part fills, so that many connections get a small buffer before a few get large ones.

use std::time::Instant;

use crate::output_window::OutputWindow;

/// Partial input of an ordinary message: a browser's request head. One page. The smallest buffer is smaller: see `Limits::buffer_bytes_min`.
const SMALL_BYTES: u32 = 4 << 10;
/// Partial input of a larger message, or the tail of a response.
const MIDDLE_BYTES: u32 = 16 << 10;

/// What a buffer is leased for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferOwner {
    /// Partial input: bytes that have arrived and are not a whole message yet, or could not be delivered to the handler.
    Input,
    /// Pending output: bytes that the handler has written and the kernel has not taken.
    Output,
}

impl BufferOwner {
    /// The number of owners.
    pub const COUNT: usize = 2;
    /// Both owners, in the order of their discriminants.
    pub const ALL: [BufferOwner; Self::COUNT] = [BufferOwner::Input, BufferOwner::Output];

    /// The name in metrics: lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            BufferOwner::Input => "input",
            BufferOwner::Output => "output",
        }
    }
}

/// A leased buffer, of which `start..end` is filled. The lease and its `Option` have 8 bytes, which is what an idle connection stores.
#[derive(Debug)]
#[must_use = "a lease must be given back to its pool"]
pub(crate) struct Lease(Box<Buffer>);

#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: u32,
    end: u32,
    held: Held,
}

/// A lease's place in the order of eviction (`eviction.rs`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// When the first byte of the unfinished message arrived, or when the peer's present stall began. `None`: the lease is on no list.
    pub(crate) since: Option<Instant>,
    /// Bytes that the peer has taken since then.
    pub(crate) progress_bytes: u32,
    /// The window over which the peer's rate is measured, for pending output.
    pub(crate) window: OutputWindow,
    /// The group that the lease counts for.
    pub(crate) group: u32,
    /// The slots before and after in the group's list, plus 1. 0 means none.
    pub(crate) older: u32,
    pub(crate) newer: u32,
}

const _: () = assert!(size_of::<Option<Lease>>() == 8, "each connection has two of them: see the budget of 192 bytes");

impl Lease {
    fn new(bytes: Box<[u8]>) -> Lease {
        Lease(Box::new(Buffer { bytes, start: 0, end: 0, held: Held::default() }))
    }

    /// Its place in the order of eviction.
    pub(crate) fn held(&self) -> &Held {
        &self.0.held
    }

    pub(crate) fn held_mut(&mut self) -> &mut Held {
        &mut self.0.held
    }

    /// The bytes that were appended and not consumed yet.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.0.bytes[self.0.start as usize..self.0.end as usize]
    }

    /// The number of filled bytes.
    pub(crate) fn len(&self) -> usize {
        (self.0.end - self.0.start) as usize
    }

    /// Whether all bytes were consumed. The lease should be given back then.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.start == self.0.end
    }

    /// The size of the buffer in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.0.bytes.len()
    }

    /// How many more bytes [`Lease::append`] takes.
    pub(crate) fn free_bytes(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Appends the part of `bytes` that fits, and returns how many bytes that were. Moves the content to the front only when the end of the
    /// buffer is too short.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.free_bytes());
        let buffer = &mut *self.0;
        if n > buffer.bytes.len() - buffer.end as usize {
            buffer.bytes.copy_within(buffer.start as usize..buffer.end as usize, 0);
            buffer.end -= buffer.start;
            buffer.start = 0;
        }
        let end = buffer.end as usize;
        buffer.bytes[end..end + n].copy_from_slice(&bytes[..n]);
        buffer.end += n as u32;
        n
    }

    /// Drops the last `n` filled bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn drop_last(&mut self, n: usize) {
        assert!(n <= self.len(), "{n} bytes dropped of {}", self.len());
        self.0.end -= n as u32;
    }

    /// Counts the first `n` filled bytes as used.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "{n} bytes consumed of {}", self.len());
        let buffer = &mut *self.0;
        buffer.start += n as u32;
        if buffer.start == buffer.end {
            (buffer.start, buffer.end) = (0, 0); // The whole buffer is free again without a move.
        }
    }
}

/// The error when the pool has no buffer for an append. The lease is unchanged, and the caller still has the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One size of buffers.
#[derive(Debug)]
struct Class {
    buffer_bytes: u32,
    /// Buffers that were given back and not leased again. The last one was used most recently and may still be in the CPU's cache, so it is
    /// leased first.
    free: Vec<Lease>,
    /// The smallest length of `free` since the last [`BufferPool::trim`]: the number of buffers that were not needed in that time.
    free_low_water: usize,
}

/// The buffers of one loop.
#[derive(Debug)]
pub(crate) struct BufferPool {
    /// By size, ascending.
    classes: Vec<Class>,
    memory_bytes_max: usize,
    /// The guaranteed share of each owner in bytes: half of the memory, less one largest buffer.
    share_bytes: usize,
    leased_bytes: [usize; BufferOwner::COUNT],
    free_bytes: usize,
}

impl BufferPool {
    /// A pool that holds at most `memory_bytes_max` (test: `every_owner_reads_back_what_it_wrote_and_the_account_is_right`), in buffers of
    /// `buffer_bytes_min`, 4 KiB, 16 KiB and `buffer_bytes_max`. A buffer is allocated when it is leased for the first time.
    ///
    /// Both shares together leave two of the largest buffers over. When the memory is full, the owner that is farther above its share is above it
    /// by more than one buffer. So an eviction does not take an owner below its share (test: `no_eviction_takes_an_owner_below_its_share`).
    pub(crate) fn new(memory_bytes_max: usize, buffer_bytes_min: u32, buffer_bytes_max: u32) -> BufferPool {
        let mut sizes: Vec<u32> = [buffer_bytes_min, SMALL_BYTES, MIDDLE_BYTES, buffer_bytes_max]
            .into_iter()
            .filter(|bytes| (buffer_bytes_min..=buffer_bytes_max).contains(bytes))
            .collect();
        sizes.dedup();
        let classes = sizes.into_iter().map(|buffer_bytes| Class { buffer_bytes, free: Vec::new(), free_low_water: 0 }).collect();
        let share_bytes = (memory_bytes_max / 2).saturating_sub(buffer_bytes_max as usize);
        BufferPool { classes, memory_bytes_max, share_bytes, leased_bytes: [0; BufferOwner::COUNT], free_bytes: 0 }
    }

    /// How many bytes one connection should read in addition to its partial input: the largest buffer while less than a quarter of the share is
    /// leased, 16 KiB up to a half, then 4 KiB. Input that is not read stays in the socket's receive buffer, and the kernel closes the TCP window
    /// when that is full.
    #[inline]
    pub(crate) fn input_space_bytes(&self) -> usize {
        let leased_bytes = self.leased_bytes[BufferOwner::Input as usize];
        let bytes = if leased_bytes < self.share_bytes / 4 {
            return usize::MAX;
        } else if leased_bytes < self.share_bytes / 2 {
            MIDDLE_BYTES
        } else {
            SMALL_BYTES
        };
        bytes as usize
    }

    /// How many bytes of output one connection should have pending at most: no bound of the pool at first, and 16 KiB when half of the share is
    /// leased. So a handler can count on 16 KiB of output space, or on `output_high_water_bytes` if that is less, when no output is pending.
    #[inline]
    pub(crate) fn output_space_bytes(&self) -> usize {
        if self.leased_bytes[BufferOwner::Output as usize] < self.share_bytes / 2 { usize::MAX } else { MIDDLE_BYTES as usize }
    }

    /// Which owner loses a buffer when the memory is full and `for_owner` needs one of `bytes_min`: the owner that would be farther above its
    /// share.
    pub(crate) fn owner_to_evict(&self, for_owner: BufferOwner, bytes_min: usize) -> BufferOwner {
        let needed = self.class_for(bytes_min).map_or(bytes_min.next_power_of_two(), |index| self.classes[index].buffer_bytes as usize);
        let wanted = |owner| self.leased_bytes[owner as usize] + if owner == for_owner { needed } else { 0 };
        if wanted(BufferOwner::Input) > wanted(BufferOwner::Output) { BufferOwner::Input } else { BufferOwner::Output }
    }

    /// An empty lease of at least `bytes_min`, of the smallest size that fits. `None` if there is no memory for it, even if the free buffers of
    /// other sizes were freed.
    pub(crate) fn lease(&mut self, owner: BufferOwner, bytes_min: usize) -> Option<Lease> {
        let Some(index) = self.class_for(bytes_min) else { return self.lease_oversized(owner, bytes_min) };
        let buffer_bytes = self.classes[index].buffer_bytes as usize;
        let lease = match self.classes[index].take_free() {
            Some(lease) => {
                self.free_bytes -= buffer_bytes;
                lease
            }
            None => {
                if self.leased_bytes() + buffer_bytes > self.memory_bytes_max {
                    return None;
                }
                self.drop_free_for(buffer_bytes);
                Lease::new(vec![0; buffer_bytes].into_boxed_slice())
            }
        };
        self.leased_bytes[owner as usize] += buffer_bytes;
        Some(lease)
    }

    /// A lease larger than the largest size, rounded up to a power of two, and freed when it is given back. Within the water marks none is
    /// needed. Output without water marks (`slow-consumer`) needs them, until it reaches the limit of the pool.
    #[cold]
    fn lease_oversized(&mut self, owner: BufferOwner, bytes_min: usize) -> Option<Lease> {
        let buffer_bytes = u32::try_from(bytes_min).ok()?.checked_next_power_of_two()? as usize;
        if self.leased_bytes() + buffer_bytes > self.memory_bytes_max {
            return None;
        }
        self.drop_free_for(buffer_bytes);
        self.leased_bytes[owner as usize] += buffer_bytes;
        Some(Lease::new(vec![0; buffer_bytes].into_boxed_slice()))
    }

    /// Takes a lease back and discards its content.
    pub(crate) fn give_back(&mut self, owner: BufferOwner, mut lease: Lease) {
        debug_assert!(lease.held().since.is_none(), "a lease that others may still evict");
        let bytes = lease.capacity();
        self.leased_bytes[owner as usize] -= bytes;
        let Some(index) = self.class_for(bytes) else { return };
        (lease.0.start, lease.0.end) = (0, 0);
        self.free_bytes += bytes;
        self.classes[index].free.push(lease);
    }

    /// Appends all of `bytes` to `lease`. Leases a buffer if there is none, and moves the content to a larger one if needed.
    ///
    /// # Errors
    /// [`Full`] if there is no memory for the buffer. Nothing has changed then (test: `a_refused_append_leaves_the_lease_as_it_was`).
    pub(crate) fn append(&mut self, owner: BufferOwner, lease: &mut Option<Lease>, bytes: &[u8]) -> Result<(), Full> {
        let held: &[u8] = match lease {
            Some(lease) if lease.free_bytes() >= bytes.len() => {
                lease.append(bytes);
                return Ok(());
            }
            Some(lease) => lease.filled(),
            None if bytes.is_empty() => return Ok(()),
            None => &[],
        };
        let mut larger = self.lease(owner, held.len() + bytes.len()).ok_or(Full)?;
        larger.append(held);
        larger.append(bytes);
        self.replace(owner, lease, larger);
        Ok(())
    }

    /// Moves the content of `lease` to a smaller buffer, if it fills at most a quarter of its own and a smaller one can be leased.
    pub(crate) fn shrink(&mut self, owner: BufferOwner, lease: &mut Option<Lease>) {
        let Some(large) = lease else { return };
        if large.len() > large.capacity() / 4 || self.class_for(large.len()) == self.class_for(large.capacity()) {
            return;
        }
        let Some(mut smaller) = self.lease(owner, large.len()) else { return };
        smaller.append(large.filled());
        self.replace(owner, lease, smaller);
    }

    /// Replaces a lease by another one, which takes over its place in the order of eviction.
    fn replace(&mut self, owner: BufferOwner, lease: &mut Option<Lease>, mut by: Lease) {
        by.0.held = lease.as_ref().map_or_else(Held::default, |lease| lease.0.held);
        if let Some(mut before) = lease.replace(by) {
            before.0.held = Held::default();
            self.give_back(owner, before);
        }
    }

    /// Frees the buffers that were not needed since the last call. The loop calls it about once a second, so a burst keeps its buffers while it
    /// lasts, and the memory is freed after it.
    pub(crate) fn trim(&mut self) {
        for class in &mut self.classes {
            // From the front, where the buffers are that were not used for the longest time.
            let freed = class.free.drain(..class.free_low_water).count();
            self.free_bytes -= freed * class.buffer_bytes as usize;
            class.free_low_water = class.free.len();
        }
    }

    /// The sizes in bytes of the buffers that are leased now, however few of their bytes are filled.
    pub(crate) fn leased_bytes(&self) -> usize {
        self.leased_bytes.iter().sum()
    }

    /// The same for one owner.
    pub(crate) fn leased_bytes_of(&self, owner: BufferOwner) -> usize {
        self.leased_bytes[owner as usize]
    }

    /// The guaranteed share of each owner in bytes.
    #[cfg(test)]
    pub(crate) fn share_bytes(&self) -> usize {
        self.share_bytes
    }

    /// Bytes of all buffers that the pool has allocated, leased or free. At most the limit.
    pub(crate) fn held_bytes(&self) -> usize {
        self.leased_bytes() + self.free_bytes
    }

    fn class_for(&self, bytes_min: usize) -> Option<usize> {
        self.classes.iter().position(|class| class.buffer_bytes as usize >= bytes_min)
    }

    /// Frees unleased buffers, the largest first, until another one of `buffer_bytes` fits under the limit.
    fn drop_free_for(&mut self, buffer_bytes: usize) {
        let leased_bytes = self.leased_bytes();
        for class in self.classes.iter_mut().rev() {
            while leased_bytes + self.free_bytes + buffer_bytes > self.memory_bytes_max && class.take_free().is_some() {
                self.free_bytes -= class.buffer_bytes as usize;
            }
        }
    }
}

impl Class {
    fn take_free(&mut self) -> Option<Lease> {
        let lease = self.free.pop()?;
        self.free_low_water = self.free_low_water.min(self.free.len());
        Some(lease)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 200 << 10;
    const LARGE: u32 = 64 << 10;
    const MIN: u32 = 1 << 10;

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
            let mut pool = BufferPool::new(LIMIT, MIN, LARGE);
            let mut leases: [Option<Lease>; 6] = Default::default();
            let mut model: [Vec<u8>; 6] = Default::default();
            for op in ops {
                match op {
                    Op::Append { owner, seed, n } => {
                        let bytes = bytes_from(seed, n);
                        match pool.append(BufferOwner::ALL[owner % 2], &mut leases[owner], &bytes) {
                            Ok(()) => model[owner].extend(&bytes),
                            // It may fail only if the buffer that is needed does not fit under the limit.
                            Err(Full) => {
                                let needed = model[owner].len() + n;
                                let class = [MIN, SMALL_BYTES, MIDDLE_BYTES, LARGE].map(|bytes| bytes as usize).into_iter().find(|&bytes| bytes >= needed);
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
                            pool.give_back(BufferOwner::ALL[owner % 2], lease);
                            model[owner].clear();
                        }
                    }
                    Op::Trim => pool.trim(),
                }
                for (lease, bytes) in leases.iter().zip(&model) {
                    prop_assert_eq!(lease.as_ref().map_or(&[][..], Lease::filled), bytes);
                    prop_assert!(lease.as_ref().is_none_or(|lease| lease.is_empty() == bytes.is_empty() && lease.free_bytes() + bytes.len() == lease.capacity()));
                }
                let leased_bytes: usize = leases.iter().flatten().map(Lease::capacity).sum();
                let free_bytes: usize = pool.classes.iter().flat_map(|class| &class.free).map(Lease::capacity).sum();
                prop_assert_eq!(pool.leased_bytes(), leased_bytes);
                prop_assert_eq!(pool.held_bytes(), leased_bytes + free_bytes);
                prop_assert!(pool.held_bytes() <= LIMIT);
            }
            for (owner, lease) in leases.into_iter().enumerate() {
                lease.into_iter().for_each(|lease| pool.give_back(BufferOwner::ALL[owner % 2], lease));
            }
            pool.trim();
            pool.trim();
            prop_assert_eq!(pool.held_bytes(), 0);
        }
    }

    #[test]
    fn a_lease_is_of_the_smallest_size_that_fits() {
        let mut pool = BufferPool::new(1 << 20, MIN, LARGE);
        for (bytes_min, capacity) in
            [(0, 1024), (1024, 1024), (1025, 4096), (4096, 4096), (4097, 16384), (16385, 65536), (65536, 65536), (65537, 131_072)]
        {
            assert_eq!(pool.lease(BufferOwner::Input, bytes_min).map(|lease| lease.capacity()), Some(capacity));
        }
        let mut small_pool = BufferPool::new(1 << 20, MIN, 4096);
        assert_eq!(small_pool.lease(BufferOwner::Input, 1025).map(|lease| lease.capacity()), Some(4096));
        assert!(small_pool.lease(BufferOwner::Output, (1 << 20) + 1).is_none(), "not beyond the limit");
    }

    #[test]
    fn free_buffers_of_other_sizes_make_way_and_leases_do_not() {
        let mut pool = BufferPool::new(64 << 10, 4096, LARGE);
        let smalls: Vec<_> = (0..16).map(|_| pool.lease(BufferOwner::Input, 1).expect("16 × 4 KiB fit")).collect();
        assert!(pool.lease(BufferOwner::Input, 1).is_none());
        let mut smalls = smalls.into_iter();
        let kept = smalls.next().expect("of 16");
        smalls.for_each(|lease| pool.give_back(BufferOwner::Input, lease));
        assert!(pool.lease(BufferOwner::Input, LARGE as usize).is_none(), "a lease of 4 KiB is in its way");
        assert_eq!(pool.held_bytes(), 64 << 10, "nothing is given up in vain");
        pool.give_back(BufferOwner::Input, kept);
        let large = pool.lease(BufferOwner::Input, LARGE as usize).expect("all else is free");
        assert_eq!((pool.leased_bytes(), pool.held_bytes()), (64 << 10, 64 << 10));
        pool.give_back(BufferOwner::Input, large);
    }

    #[test]
    fn a_refused_append_leaves_the_lease_as_it_was() {
        let mut pool = BufferPool::new(16 << 10, MIN, 16 << 10);
        let mut lease = None;
        assert_eq!(pool.append(BufferOwner::Input, &mut lease, &bytes_from(1, 4000)), Ok(()));
        assert_eq!(
            pool.append(BufferOwner::Input, &mut lease, &bytes_from(2, 4000)),
            Err(Full),
            "16 KiB state the 4 KiB would be over the limit"
        );
        assert_eq!(lease.as_ref().map(Lease::filled), Some(&bytes_from(1, 4000)[..]));
        assert_eq!(pool.leased_bytes(), 4096);
        assert_eq!(pool.append(BufferOwner::Input, &mut lease, &[7; 96]), Ok(()), "what fits still fits");
    }

    #[test]
    fn appending_nothing_leases_nothing() {
        let mut pool = BufferPool::new(LIMIT, MIN, LARGE);
        let mut lease = None;
        assert_eq!(pool.append(BufferOwner::Input, &mut lease, &[]), Ok(()));
        assert!(lease.is_none());
    }

    #[test]
    fn after_a_peak_the_memory_goes_back_but_not_what_is_still_used() {
        let mut pool = BufferPool::new(1 << 20, MIN, LARGE);
        let peak: Vec<_> = (0..100).map(|_| pool.lease(BufferOwner::Input, 1).expect("there is room")).collect();
        peak.into_iter().for_each(|lease| pool.give_back(BufferOwner::Input, lease));
        pool.trim();
        assert_eq!(pool.held_bytes(), 100 * 1024, "all of them were used since the last call");
        for _ in 0..1000 {
            let pair =
                [pool.lease(BufferOwner::Input, 1).expect("there is room"), pool.lease(BufferOwner::Input, 1).expect("there is room")];
            pair.into_iter().for_each(|lease| pool.give_back(BufferOwner::Input, lease));
        }
        pool.trim();
        assert_eq!(pool.held_bytes(), 2 * 1024, "two at a time were enough");
        pool.trim();
        assert_eq!(pool.held_bytes(), 0);
    }
}
