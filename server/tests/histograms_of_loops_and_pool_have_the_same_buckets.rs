//! The loops' and the pool's histograms have equal bounds: one table reads them all, although the two crates do not know each other.

use reactor::counter::Histogram as OfLoops;
use worker_pool::{BUCKETS, Histogram as OfPool};

#[test]
fn histograms_of_loops_and_pool_have_the_same_buckets() {
    assert_eq!(OfLoops::BUCKETS, BUCKETS);
    for bucket in 0..BUCKETS {
        assert_eq!(OfLoops::bound(bucket), OfPool::bound(bucket), "bucket {bucket}");
    }
}
