//! A bar that shows how far a command has come, where there is a terminal to show it on.

use indicatif::{ProgressBar, ProgressStyle};

/// See the top of this file. Goes away when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that counts bytes.
    pub fn bytes(what: &'static str) -> Bar {
        Bar::new(what, "{msg} {wide_bar} {bytes} of {total_bytes} ({binary_bytes_per_sec}, {eta} left)")
    }

    /// No end is known.
    pub fn open_end(what: &'static str) -> Bar {
        Bar::new(what, "{msg} {human_pos} ({per_sec})")
    }

    fn new(what: &'static str, template: &str) -> Bar {
        let bar = ProgressBar::new(0); // draws on standard error, and only if that is a terminal
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Bar(bar)
    }

    /// So much of so much is done.
    pub fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// So much is done.
    pub fn count_to(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes in words.
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
