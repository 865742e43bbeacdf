//! Places for small tables: of each size one for every segment.
//!
//! `Memory` has it, tables ask it under the index's exclusive lock. Tables double while they are small, and all do at about
//! the same time: so one mapping holds all of one size, each segment's at a place of its own, and its pages go when those
//! who have their places there have grown out of them. From malloc they would come at the price of a call into the kernel
//! for nearly each: in other threads than the first, glibc's heap grows by single pages (`mprotect`), and that waits for
//! whoever holds the process's memory map. Must never give a place twice.

use super::SEGMENTS;
use super::line::Line;
use super::memory::EXTENT_LINES;
use crate::base::mapping::Mapping;
use std::ptr::NonNull;

/// Sizes: 2^n lines and up to twice that, as the ladder of segments has them; less than `EXTENT_LINES`.
const SIZES: usize = EXTENT_LINES.ilog2() as usize;

/// Neighbours whose pages come and go together: page by page they would cost three times as much.
const GROUP: usize = u64::BITS as usize;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Nursery {
    sizes: [Option<Places>; SIZES],
}

/// The places of one size. Segments are counted by groups of neighbours, which grow at nearly the same time.
struct Places {
    mapping: Mapping,
    groups: [Group; SEGMENTS / GROUP],
}

#[derive(Clone, Copy, Default)]
struct Group {
    /// A bit for each segment that has ever had its place.
    given: u64,
    /// A bit for each that has left it.
    left: u64,
}

/// Which size a table of so many lines has; `lines` is 1 to `EXTENT_LINES` - 1.
#[inline]
fn size_of_lines(lines: usize) -> usize {
    lines.ilog2() as usize
}

/// The first line of a segment's place among those of its size. Segment s has up to 2^`size` * (1 + s / SEGMENTS) lines,
/// so this is the sum of that for those before it.
fn first_line(size: usize, segment: usize) -> usize {
    (segment << size) + ((segment * segment.saturating_sub(1)) << size).div_ceil(2 * SEGMENTS)
}

/// Where in the mapping of its size the places of a group begin and end.
fn group_bytes(size: usize, number: usize) -> (usize, usize) {
    let byte = |segment| first_line(size, segment) * size_of::<Line>();
    (byte(number * GROUP), byte((number + 1) * GROUP))
}

impl Nursery {
    /// The place of `segment` for a table of `lines` lines, all of them blank. `None` without memory, or if it has had it.
    pub(super) fn take(&mut self, segment: usize, lines: usize) -> Option<NonNull<Line>> {
        let size = size_of_lines(lines);
        let first = first_line(size, segment);
        if segment >= SEGMENTS || first + lines > first_line(size, segment + 1) {
            return None;
        }
        let places = self.sizes.get_mut(size)?;
        if places.is_none() {
            let mapping = Mapping::new(first_line(size, SEGMENTS) * size_of::<Line>())?;
            *places = Some(Places { mapping, groups: [Group::default(); SEGMENTS / GROUP] });
        }
        let places = places.as_mut()?;
        let (group, bit) = (&mut places.groups[segment / GROUP], 1 << (segment % GROUP));
        if group.given & bit != 0 {
            return None;
        }
        if group.given == 0 {
            let (from, end) = group_bytes(size, segment / GROUP);
            places.mapping.bring_in(from, end, || ());
        }
        group.given |= bit;
        NonNull::new(places.mapping.start().as_ptr().wrapping_add(first * size_of::<Line>()).cast::<Line>())
    }

    /// The table of `segment`, of so many lines, has grown out of its place.
    pub(super) fn leave(&mut self, segment: usize, lines: usize) {
        let size = size_of_lines(lines);
        let Some(slot) = self.sizes.get_mut(size) else { return };
        let Some(places) = slot else { return };
        let number = segment / GROUP;
        let group = &mut places.groups[number];
        group.left |= 1 << (segment % GROUP);
        if group.left == u64::MAX {
            let (from, end) = group_bytes(size, number);
            places.mapping.discard(from, end);
        }
        if places.groups.iter().all(|group| group.left == group.given) {
            *slot = None;
        }
    }

    /// Bytes of memory taken.
    pub(super) fn bytes(&self) -> usize {
        let mut bytes = 0;
        for (size, places) in self.sizes.iter().enumerate() {
            for (number, group) in places.iter().flat_map(|places| &places.groups).enumerate() {
                let (from, end) = group_bytes(size, number);
                bytes += if group.given == 0 || group.left == u64::MAX { 0 } else { end - from };
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_are_given_once() {
        let mut nursery = Nursery::default();
        for size in 0..SIZES {
            let mut end = 0;
            for segment in 0..SEGMENTS {
                let lines = (1 << size) + (segment << size) / SEGMENTS;
                let place = nursery.take(segment, lines).expect("a place").addr().get();
                assert!(place >= end, "size {size}, segment {segment}");
                end = place + lines * size_of::<Line>();
                assert!(nursery.take(segment, lines).is_none());
            }
            let places = nursery.sizes[size].as_ref().expect("in use");
            assert!(end <= places.mapping.start().addr().get() + places.mapping.bytes());
        }
        let mappings = nursery.sizes.iter().flatten().map(|places| places.mapping.bytes()).sum();
        assert_eq!(nursery.bytes(), mappings);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut nursery = Nursery::default();
        assert!(nursery.take(SEGMENTS, 1).is_none() && nursery.take(0, 3).is_none() && nursery.take(0, EXTENT_LINES).is_none());
        assert!(nursery.take(0, 2).is_some() && nursery.take(SEGMENTS - 1, 3).is_some());
    }

    #[test]
    fn a_size_that_nobody_uses_any_more_goes() {
        let mut nursery = Nursery::default();
        assert!(nursery.take(3, 4).is_some() && nursery.take(4, 4).is_some());
        nursery.leave(3, 4);
        assert!(nursery.take(3, 4).is_none(), "it may be touched, and is not blank");
        nursery.leave(4, 4);
        assert_eq!(nursery.bytes(), 0);
        assert!(nursery.take(3, 4).is_some());
    }

    #[test]
    fn neighbours_that_have_left_take_no_memory() {
        let mut nursery = Nursery::default();
        assert!(nursery.take(SEGMENTS - 1, 100).is_some());
        let before = nursery.bytes();
        (0..GROUP).for_each(|segment| assert!(nursery.take(segment, 64).is_some()));
        assert!(nursery.bytes() >= before + GROUP * 64 * size_of::<Line>());
        (0..GROUP).for_each(|segment| nursery.leave(segment, 64));
        assert_eq!(nursery.bytes(), before);
        assert!((0..GROUP).all(|segment| nursery.take(segment, 64).is_none()));
    }
}
