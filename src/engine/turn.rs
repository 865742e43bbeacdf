//! Places in the commit order.
//!
//! A `Turn` is drawn when a group is formed and passes two gates in the order of drawing: `stage` (the log gives the
//! group its place) and `publish` (readers see it). Dropping a turn passes what is left of it, in order, so that a
//! failure can never hold up the groups behind it.

#[cfg(all(test, kv_model = "loom"))]
mod models;

use crate::base::planted::{Bug, planted};
use crate::base::sync::{Arc, Condvar, Mutex};

#[derive(Default)]
struct Gates {
    next_to_draw: u64,
    next_to_stage: u64,
    next_to_publish: u64,
}

/// The line in which groups stand.
#[derive(Default)]
pub struct Turnstile {
    gates: Mutex<Gates>,
    moved: Condvar,
}

/// A place in the line, to be used up once.
pub struct Turn {
    line: Arc<Turnstile>,
    number: u64,
    staged: bool,
}

impl Turnstile {
    /// Draws the next place.
    pub fn draw(self: &Arc<Self>) -> Turn {
        let mut gates = self.gates.lock();
        let number = gates.next_to_draw;
        gates.next_to_draw += 1;
        Turn { line: Arc::clone(self), number, staged: false }
    }

    /// How many places were drawn.
    #[cfg(test)]
    pub fn drawn(&self) -> u64 {
        self.gates.lock().next_to_draw
    }

    fn wait_to_publish(&self, number: u64) {
        let mut gates = self.gates.lock();
        while gates.next_to_publish != number {
            self.moved.wait(&mut gates);
        }
    }
}

impl Turn {
    /// Its place in the line.
    #[cfg(test)]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until all earlier turns have been staged, runs `body` alone, and lets the next turn in.
    pub fn stage<T>(&mut self, body: impl FnOnce() -> T) -> T {
        debug_assert!(!self.staged, "a turn is staged once");
        let mut gates = self.line.gates.lock();
        while gates.next_to_stage != self.number {
            self.line.moved.wait(&mut gates);
        }
        drop(gates);
        // Declared before `body` runs: should it unwind, the next turn is let in all the same.
        let _let_in = OnDrop(|| {
            self.line.gates.lock().next_to_stage += 1;
            self.line.moved.notify_all();
        });
        self.staged = true;
        body()
    }

    /// Like `stage`, but waits until all earlier turns have been published too: `body` sees what will be, not what was.
    pub fn stage_alone<T>(&mut self, body: impl FnOnce() -> T) -> T {
        let line = Arc::clone(&self.line);
        let number = self.number;
        self.stage(|| {
            if !planted(Bug::AloneTooEarly) {
                line.wait_to_publish(number);
            }
            body()
        })
    }

    /// Waits until all earlier turns have been published, runs `body` alone, and lets the next turn in.
    pub fn publish<T>(mut self, body: impl FnOnce() -> T) -> T {
        if !self.staged {
            self.stage(|| ());
        }
        self.line.wait_to_publish(self.number);
        // `self` is dropped behind `body`, also if that unwinds; its drop opens the gate.
        body()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.staged {
            self.stage(|| ());
        }
        self.line.wait_to_publish(self.number);
        self.line.gates.lock().next_to_publish += 1;
        if !planted(Bug::TurnKept) {
            self.line.moved.notify_all();
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_published_in_the_order_of_drawing() {
        let line = Arc::new(Turnstile::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let turns: Vec<_> = (0..16).map(|i| (i, line.draw())).collect();
        std::thread::scope(|scope| {
            for (i, mut turn) in turns.into_iter().rev() {
                let seen = Arc::clone(&seen);
                scope.spawn(move || {
                    if i % 3 == 0 {
                        return; // dropped: the others must get past it
                    }
                    turn.stage(|| ());
                    turn.publish(|| seen.lock().push(i));
                });
            }
        });
        let expected: Vec<_> = (0..16).filter(|i| i % 3 != 0).collect();
        assert_eq!(*seen.lock(), expected);
    }
}
