//! Which callbacks this thread is in: some calls are refused there instead of waiting for themselves.

use crate::base::sync::thread_local;
use std::cell::{Cell, RefCell};

const REMEMBERED: usize = 16;

struct Scopes {
    depth: usize,
    managers: [u64; REMEMBERED],
}

thread_local! {
    // Neither has a destructor: host threads may outlive the library's use.
    static SCOPES: RefCell<Scopes> = const { RefCell::new(Scopes { depth: 0, managers: [0; REMEMBERED] }) };
    static MARK: Cell<u8> = const { Cell::new(0) };
}

/// Marks this thread as running callbacks of `manager` while it lives.
pub(super) struct CallbackScope;

impl CallbackScope {
    pub fn enter(manager: u64) -> CallbackScope {
        SCOPES.with(|scopes| {
            let mut scopes = scopes.borrow_mut();
            let depth = scopes.depth;
            if let Some(slot) = scopes.managers.get_mut(depth) {
                *slot = manager;
            }
            scopes.depth += 1;
        });
        CallbackScope
    }
}

impl Drop for CallbackScope {
    fn drop(&mut self) {
        SCOPES.with(|scopes| scopes.borrow_mut().depth -= 1);
    }
}

/// Whether this thread runs a callback of `manager` right now (deeper than remembered: taken for granted).
pub(super) fn inside_callback_of(manager: u64) -> bool {
    SCOPES.with(|scopes| {
        let scopes = scopes.borrow();
        scopes.depth > REMEMBERED || scopes.managers[..scopes.depth].contains(&manager)
    })
}

/// A number that no other living thread has.
pub(super) fn thread_mark() -> usize {
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}
