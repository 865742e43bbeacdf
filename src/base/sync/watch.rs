//! Says to a model checker what is done to plain memory, so that it finds accesses that nothing puts in order.
//!
//! Called next to `unsafe` that hands bytes or objects from one thread to another. Without `--cfg kv_model="loom"` these are
//! empty functions, and the calls vanish.

#[cfg(kv_model = "loom")]
mod cells {
    use std::cell::RefCell;
    use std::collections::HashMap;

    thread_local! {
        /// A cell for each place that was written to. All threads of a model are one thread of the system.
        static CELLS: RefCell<HashMap<usize, std::rc::Rc<loom::cell::UnsafeCell<()>>>> = RefCell::default();
    }

    pub fn forget() {
        CELLS.with_borrow_mut(HashMap::clear);
    }

    pub fn read(place: usize) {
        // What was never written to is read by all as the system gave it.
        if let Some(cell) = CELLS.with_borrow(|cells| cells.get(&place).cloned()) {
            cell.with(|_| ());
        }
    }

    pub fn written(place: usize) {
        let cell = CELLS.with_borrow(|cells| cells.get(&place).cloned());
        let cell = cell.unwrap_or_else(|| {
            let cell = std::rc::Rc::new(loom::cell::UnsafeCell::new(()));
            CELLS.with_borrow_mut(|cells| cells.insert(place, std::rc::Rc::clone(&cell)));
            cell
        });
        cell.with_mut(|_| ());
    }
}

/// Before each run of a model.
#[cfg(kv_model = "loom")]
pub fn forget() {
    cells::forget();
}

/// This thread looks at what stands at `place`.
#[inline(always)]
pub fn read<T>(place: *const T) {
    #[cfg(kv_model = "loom")]
    cells::read(place.addr());
    #[cfg(not(kv_model = "loom"))]
    let _ = place;
}

/// This thread changes what stands at `place`.
#[inline(always)]
pub fn written<T>(place: *const T) {
    #[cfg(kv_model = "loom")]
    cells::written(place.addr());
    #[cfg(not(kv_model = "loom"))]
    let _ = place;
}

/// The same for `len` bytes from `place` on.
#[inline(always)]
pub fn read_bytes(place: *const u8, len: usize) {
    #[cfg(kv_model = "loom")]
    (0..len).for_each(|at| cells::read(place.addr() + at));
    #[cfg(not(kv_model = "loom"))]
    let _ = (place, len);
}

/// The same for `len` bytes from `place` on.
#[inline(always)]
pub fn written_bytes(place: *const u8, len: usize) {
    #[cfg(kv_model = "loom")]
    (0..len).for_each(|at| cells::written(place.addr() + at));
    #[cfg(not(kv_model = "loom"))]
    let _ = (place, len);
}
