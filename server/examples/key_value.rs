//! A key-value service over HTTP, as a builder's first fork might be: `GET`, `PUT` and `DELETE /keys/NAME`, in memory.
//!
//! `cargo run --release -p server --example key_value`, then
//! `curl -T file http://127.0.0.1:8080/keys/a`, `curl http://127.0.0.1:8080/keys/a`, `curl -X DELETE http://127.0.0.1:8080/keys/a`.
//!
//! Everything is bounded: a key (414), a value (413), and the memory of all of them, with the bodies that are still on their way (507).
//!
//! **Shared state.** Each loop has a service of its own, and all of them the one [`Store`]. A loop must never wait, and a lock is a place to
//! wait; still there are locks here, because nothing is done under one that takes time. The map is cut into [`SHARDS`] parts, and under the
//! lock of one there is a lookup and a pointer put in its place: no copy of a value, no free of one, no I/O, no other lock, no call that could
//! panic. The longest it is ever held is while a shard of some thousand keys grows, a few times in its life; and two loops meet there only when
//! they ask for keys of one shard in the same moment. (A thread that the kernel puts aside just there makes the next one wait for its slice.
//! All who take these locks are loops, of one priority, and are in there for a small part of their time.) The other way, one owner loop that
//! the others send mail to, has no lock at all, but each request then waits for two loops, and the owner's core is the limit of all. Where
//! more than this must be done under a lock, that way or the pool is right.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use server::answer::{Answer, BodySink};
use server::collected::CollectedBody;
use server::http::{BodyKind, Method, Request, Response, percent_decode};
use server::ledger::{Charge, MemoryBudget};
use server::service::Service;

/// Bytes of a decoded key. As much as a file name has on Linux (`NAME_MAX`, limits.h).
const KEY_BYTES_MAX: usize = 255;
/// Bytes of a value. It is copied once, on a loop, when its last byte has come: keep it small, or leave the copy to the pool.
const VALUE_BYTES_MAX: usize = 256 << 10;
/// Bytes of all keys and values, of what each costs beside them, and of the bodies on their way.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// What a key costs beside its bytes: its place in the table (49 bytes, in a table of which just after growing 7 of 16 places are used), the
/// two counts of `Arc`, two headers of the allocator.
const KEY_OVERHEAD_BYTES: usize = 160;
/// Far more than there are loops, so that two of them rarely want the same one.
const SHARDS: usize = 64;

/// All keys, of all loops.
struct Store {
    shards: [Mutex<HashMap<Box<str>, Arc<Value>>>; SHARDS],
    /// Keyed by chance: who could choose keys of one shard, or of one place in a table, could make it slow.
    hasher: RandomState,
    /// The memory of keys and values, and of bodies that are arriving.
    budget: Arc<MemoryBudget>,
}

/// A value and the memory that it takes. Responses share it: a reader that takes minutes holds no lock and no copy, and a value that is deleted meanwhile stays
/// charged until the last reader has it.
struct Value {
    bytes: Box<[u8]>,
    _charge: Charge,
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Store {
    fn new(budget: Arc<MemoryBudget>) -> Arc<Store> {
        Arc::new(Store { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new(), budget })
    }

    /// Nothing panics under the lock, so a poisoned one is as good as any.
    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<Box<str>, Arc<Value>>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &str) -> Option<Arc<Value>> {
        self.shard(key).get(key).map(Arc::clone)
    }

    /// True if the key is new.
    fn put(&self, key: Box<str>, value: Arc<Value>) -> bool {
        // The old value is freed behind the semicolon, when the lock is open again.
        let old = self.shard(&key).insert(key, value);
        old.is_none()
    }

    fn delete(&self, key: &str) -> bool {
        let old = self.shard(key).remove(key);
        old.is_some()
    }
}

/// A value that is arriving. Its memory is charged as it comes, not as it was announced: a length is only a promise.
struct Put {
    store: Arc<Store>,
    key: Box<str>,
    body: CollectedBody,
    charge: Charge,
    refused: Option<Response>,
}

impl BodySink for Put {
    fn take(&mut self, piece: &[u8]) -> usize {
        if piece.len() > VALUE_BYTES_MAX - self.body.len() {
            self.refused = Some(too_large());
        } else if self.charge.grow_to(overhead_bytes(&self.key) + self.body.memory_bytes(piece.len())).is_err() || !self.body.append(piece)
        {
            self.refused = Some(full());
        } else {
            return piece.len();
        }
        0
    }

    fn expect(&mut self, length_bytes: u64) {
        self.body.expect(length_bytes);
    }

    fn end(self: Box<Self>) -> Answer {
        let Put { store, key, body, mut charge, refused } = *self;
        if let Some(refused) = refused {
            return refused.into();
        }
        charge.shrink_to(overhead_bytes(&key) + body.len());
        let is_new = store.put(key, Arc::new(Value { bytes: body.into_bytes().into(), _charge: charge }));
        Response::empty(if is_new { 201 } else { 204 }).into()
    }
}

/// What a key costs with its bytes.
fn overhead_bytes(key: &str) -> usize {
    KEY_OVERHEAD_BYTES + key.len()
}

fn too_large() -> Response {
    Response::text(format!("a value has at most {VALUE_BYTES_MAX} bytes\n")).status(413)
}

/// RFC 4918 section 11.5: not the request's fault, and no use in sending it again at once.
fn full() -> Response {
    Response::text("no room for more; delete something\n").status(507)
}

/// One loop's view of the store.
struct KeyValue(Arc<Store>);

impl Service for KeyValue {
    fn call(&mut self, request: &Request<'_>, _now: Instant) -> Answer {
        let Some(name) = request.path.strip_prefix("/keys/") else { return Response::not_found().into() };
        let Ok(key) = percent_decode(name) else { return Response::text("broken percent-encoding\n").status(400).into() };
        if key.is_empty() {
            return Response::not_found().into();
        }
        if key.len() > KEY_BYTES_MAX {
            return Response::text(format!("a key has at most {KEY_BYTES_MAX} bytes\n")).status(414).into();
        }
        match request.method {
            Method::Get | Method::Head => self.0.get(&key).map_or_else(Response::not_found, Response::bytes).into(),
            Method::Put => self.put(&key, request.body),
            Method::Delete if self.0.delete(&key) => Response::empty(204).into(),
            Method::Delete => Response::not_found().into(),
            method => Answer::not_allowed(method, "GET, HEAD, PUT, DELETE, OPTIONS"),
        }
    }
}

impl KeyValue {
    /// What can be refused is refused before the body is read: a client that waits for 100 Continue never sends it.
    fn put(&self, key: &str, body: BodyKind) -> Answer {
        if matches!(body, BodyKind::Length(bytes) if bytes > VALUE_BYTES_MAX as u64) {
            return too_large().into();
        }
        let Ok(charge) = self.0.budget.charge(overhead_bytes(key)) else { return full().into() };
        Answer::Read(Box::new(Put { store: Arc::clone(&self.0), key: key.into(), body: CollectedBody::default(), charge, refused: None }))
    }
}

fn main() -> ExitCode {
    server::run::program(std::env::args_os(), |config| {
        let store = Store::new(config.memory_budget("values", MEMORY_BYTES_MAX, "keys and values, and bodies that are arriving"));
        move || KeyValue(Arc::clone(&store))
    })
}
