//! A batch: reads and writes that are handed over together. Filled by the edge, one call at a time.

use super::request::{Draft, Edge, Key};
use super::ring::Ring;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::limits::URING_BATCH_MAX;
use crate::base::sync::{Arc, Mutex};

/// See the file.
pub struct Batch {
    ring: Arc<Ring>,
    capacity: usize,
    inside: Mutex<Inside>,
}

struct Inside {
    drafts: Vec<Draft>,
    /// Requests that it has handed over: they are given back with it.
    submitted: Vec<Key>,
}

impl Batch {
    /// An empty batch for `ring`.
    pub fn create(ring: &Arc<Ring>, capacity: usize) -> Result<Batch> {
        if !(1..=URING_BATCH_MAX).contains(&capacity) {
            return Err(Error::new(Code::PARAM, format!("capacity is {capacity}: a batch holds 1 to {URING_BATCH_MAX} requests")));
        }
        let mut drafts = Vec::new();
        drafts.try_reserve_exact(capacity).map_err(|_| no_memory())?;
        Ok(Batch { ring: Arc::clone(ring), capacity, inside: Mutex::new(Inside { drafts, submitted: Vec::new() }) })
    }

    /// The ring that it is for.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Adds a request, which `make` makes if there is room for it.
    pub fn add(&self, make: impl FnOnce() -> Result<Draft>) -> Result<()> {
        let mut inside = self.inside.lock();
        if inside.drafts.len() >= self.capacity {
            let text = format!("the batch holds its {} requests: submit it, then add on", self.capacity);
            return Err(Error::new(Code::BATCH_FULL, text));
        }
        let draft = make()?;
        inside.drafts.push(draft); // within the capacity that was reserved
        Ok(())
    }

    /// Hands everything over; the batch is empty then, and as it was after an error.
    pub fn submit(&self, ring: &Arc<Ring>) -> Result<()> {
        if !Arc::ptr_eq(ring, &self.ring) {
            return Err(Error::new(Code::PARAM, "the batch was created for another ring: submit it to its own"));
        }
        let mut guard = self.inside.lock();
        let inside = &mut *guard;
        if inside.drafts.is_empty() {
            return Err(Error::new(Code::PARAM, "the batch is empty: add something first"));
        }
        if inside.submitted.len() >= self.capacity {
            inside.submitted.retain(|key| ring.knows(*key));
        }
        inside.submitted.try_reserve(inside.drafts.len()).map_err(|_| no_memory())?;
        ring.submit_many(&mut inside.drafts, &mut inside.submitted)
    }

    /// Gives back what it holds: drafts are dropped, requests in flight go on to their ends.
    pub fn destroy(&self, edge: &dyn Edge) {
        let mut inside = self.inside.lock();
        let (drafts, submitted) = (std::mem::take(&mut inside.drafts), std::mem::take(&mut inside.submitted));
        drop(inside);
        drafts.iter().for_each(|draft| edge.release(draft.tag));
        submitted.into_iter().for_each(|key| self.ring.give_back(key));
    }
}

fn no_memory() -> Error {
    Error::no_memory("no memory for the batch: give the process more, or destroy what has ended")
}
