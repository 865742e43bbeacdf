//! A simulated disk with its lid off: tests look at files and damage them. No call is counted, nothing fails, and
//! what is changed here is on stable storage at once (all else in that file with it).
//!
//! Files go by their plain names; with several directories, the first one that has the name counts.

use super::SimDisk;
use super::content::Content;
use super::node::Node;
use super::state::State;
use crate::base::sync::Arc;
use std::path::Path;

impl SimDisk {
    /// Names of all files, sorted (lock files too).
    pub fn list_files(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut names: Vec<String> = state.folders.values().flat_map(|folder| folder.seen.keys().map(|name| name.to_string())).collect();
        names.sort();
        names
    }

    /// All bytes of a file as calls see them; `None` if there is none of that name.
    pub fn read_raw(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = find(&state, name)?;
        state.files.get(&id).map(|node| node.seen().to_vec())
    }

    /// The same, of the file in one directory.
    pub fn read_raw_in(&self, dir: &str, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = state.folders.get(Path::new(dir))?.seen.get(name)?;
        state.files.get(id).map(|node| node.seen().to_vec())
    }

    /// Puts `bytes` in the place of a file's, or makes such a file in the first directory; false if there is none.
    pub fn write_raw(&self, name: &str, bytes: &[u8]) -> bool {
        let content = Content::from_bytes(bytes);
        if self.edit(name, |old| *old = content.clone()) {
            return true;
        }
        let mut state = self.state.lock();
        let id = state.next_file;
        let Some(folder) = state.folders.values_mut().next() else { return false };
        let name: Arc<str> = name.into();
        folder.seen.insert(Arc::clone(&name), id);
        folder.stable.insert(name, id);
        let mut node = Node::default();
        node.edit(|empty| *empty = content);
        state.files.insert(id, node);
        state.next_file += 1;
        true
    }

    /// Turns over bit `bit` (0 to 7) of the byte at `offset`; false if there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) -> bool {
        let mut found = false;
        self.edit(name, |content| {
            let mut byte = [0];
            if content.read(offset, &mut byte) == 1 {
                content.write(offset, &[byte[0] ^ 1u8.rotate_left(bit)]);
                found = true;
            }
        });
        found
    }

    /// Puts `bytes` over what lies at `offset` (a misdirected write, an old sector, a run of zeros); false if there is
    /// no such file.
    pub fn patch_raw(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        self.edit(name, |content| content.write(offset, bytes))
    }

    /// Cuts a file, or extends it with zeros; false if there is none.
    pub fn truncate_raw(&self, name: &str, len: u64) -> bool {
        self.edit(name, |content| content.set_len(len))
    }

    /// Takes a file away, durably; false if there is none.
    pub fn remove_raw(&self, name: &str) -> bool {
        let mut state = self.state.lock();
        for folder in state.folders.values_mut() {
            if folder.seen.remove(name).is_some() {
                folder.stable.remove(name);
                folder.unsynced.retain(|(other, ..)| &**other != name);
                return true;
            }
        }
        false
    }

    /// Makes bytes unreadable: reads of them fail with EIO until `heal`; false if there is no such file.
    pub fn make_unreadable(&self, name: &str, offset: u64, bytes: u64) -> bool {
        self.with_node(name, |node| node.unreadable.push((offset, offset.saturating_add(bytes))))
    }

    /// Makes all of a file readable again; false if there is none.
    pub fn heal(&self, name: &str) -> bool {
        self.with_node(name, |node| node.unreadable.clear())
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Content)) -> bool {
        self.with_node(name, |node| node.edit(edit))
    }

    fn with_node(&self, name: &str, then: impl FnOnce(&mut Node)) -> bool {
        let mut state = self.state.lock();
        let node = find(&state, name).and_then(|id| state.files.get_mut(&id));
        node.map(then).is_some()
    }
}

fn find(state: &State, name: &str) -> Option<u64> {
    state.folders.values().find_map(|folder| folder.seen.get(name).copied())
}
