//! Lists that mostly have one element, or a few, and take no memory of their own as long as they have no more.
//!
//! Where batches are grouped, most groups are of one: they are not to pay for an allocation each time. Used by whoever makes such
//! lists; must never be used for what is mostly long.

use std::collections::TryReserveError;
use std::ops::{Deref, DerefMut};

/// A list that takes memory of its own for more than one element.
#[derive(Debug)]
pub enum Few<T> {
    /// One element, or none.
    One(Option<T>),
    /// Two, or more.
    More(Vec<T>),
}

impl<T> Few<T> {
    /// A list of one.
    pub fn one(element: T) -> Self {
        Few::One(Some(element))
    }

    /// Adds an element at the end.
    pub fn push(&mut self, element: T) {
        match self {
            Few::One(one) => match one.take() {
                None => *one = Some(element),
                Some(first) => *self = Few::More(vec![first, element]),
            },
            Few::More(list) => list.push(element),
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut few = Few::One(None);
        elements.into_iter().for_each(|element| few.push(element));
        few
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Few::One(one) => one.as_slice(),
            Few::More(list) => list,
        }
    }
}

impl<T> DerefMut for Few<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::One(one) => one.as_mut_slice(),
            Few::More(list) => list,
        }
    }
}

/// A list of what is copied, up to `N` of which take no memory of their own.
pub struct FewCopies<T, const N: usize> {
    few: [T; N],
    len: usize,
    /// All of them, as soon as there are more.
    more: Vec<T>,
}

impl<T: Copy, const N: usize> FewCopies<T, N> {
    /// An empty list; `none` stands where nothing is.
    pub fn new(none: T) -> Self {
        FewCopies { few: [none; N], len: 0, more: Vec::new() }
    }

    /// A list of `len` copies of `element`.
    pub fn filled(element: T, len: usize) -> Result<Self, TryReserveError> {
        let mut copies = FewCopies { few: [element; N], len, more: Vec::new() };
        if len > N {
            copies.more.try_reserve_exact(len)?;
            copies.more.resize(len, element);
        }
        Ok(copies)
    }

    /// Adds an element at the end.
    pub fn push(&mut self, element: T) {
        if self.len < N {
            self.few[self.len] = element;
        } else {
            if self.len == N {
                self.more.extend_from_slice(&self.few);
            }
            self.more.push(element);
        }
        self.len += 1;
    }
}

impl<T, const N: usize> Deref for FewCopies<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        if self.len <= N { &self.few[..self.len] } else { &self.more }
    }
}

impl<T, const N: usize> DerefMut for FewCopies<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        if self.len <= N { &mut self.few[..self.len] } else { &mut self.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_whatever_its_length() {
        for len in 0..5 {
            let mut few: Few<usize> = (0..len).collect();
            assert!(few.iter().copied().eq(0..len), "{few:?}");
            assert_eq!(matches!(few, Few::One(_)), len < 2);
            few.iter_mut().for_each(|element| *element += 1);
            few.push(7);
            assert!(few.iter().copied().eq((1..=len).chain([7])), "{few:?}");
        }
        assert_eq!(*Few::one(3), [3]);
    }

    #[test]
    fn copies_are_in_order_whatever_their_number() {
        let mut copies = FewCopies::<usize, 3>::new(0);
        for len in 0..8 {
            assert!(copies.iter().copied().eq(0..len));
            assert_eq!(copies.more.is_empty(), len <= 3);
            copies.push(len);
            copies[len] += 1;
            copies[len] -= 1;
            let mut filled = FewCopies::<usize, 3>::filled(7, len).expect("memory");
            filled.push(8);
            assert!(filled.iter().copied().eq(std::iter::repeat_n(7, len).chain([8])));
        }
    }
}
