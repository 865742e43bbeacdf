//! Models of the batch room: who delivers, who is woken, who frees, when several come at once.
//!
//! loom tries small encounters on a lane without threads (`encounters`); shuttle plays the whole room, threads and all, over
//! the engine in memory (`room`).

#[cfg(kv_model = "loom")]
mod encounters;
#[cfg(kv_model = "shuttle")]
mod room;
