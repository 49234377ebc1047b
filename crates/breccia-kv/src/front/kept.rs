//! What the services of one worker share for as long as one of them holds it.
//!
//! Not a cache: nothing here keeps anything alive. Invariant: under one name there is one, unless what
//! the name stands for has become another.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// Things by name.
pub(crate) type Kept<T> = BTreeMap<String, Weak<T>>;

/// What is there under a name, if it `fits`; else what `make` makes.
pub(crate) fn kept<T>(
    all: &mut Kept<T>,
    name: &str,
    fits: impl FnOnce(&T) -> bool,
    make: impl FnOnce() -> Rc<T>,
) -> Rc<T> {
    let known = all.get(name).and_then(Weak::upgrade);
    known.filter(|it| fits(it)).unwrap_or_else(|| {
        let new = make();
        all.insert(name.to_owned(), Rc::downgrade(&new));
        new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_for_a_name_until_nobody_holds_it_or_it_does_not_fit() {
        let mut all = Kept::default();
        let first = kept(&mut all, "a", |_| true, || Rc::new(1));
        assert_eq!(*kept(&mut all, "a", |_| true, || Rc::new(2)), 1);
        assert_eq!(*kept(&mut all, "b", |_| true, || Rc::new(3)), 3);
        let other = kept(&mut all, "a", |it| *it != 1, || Rc::new(4));
        assert_eq!((*first, *other), (1, 4));
        drop(other);
        assert_eq!(*kept(&mut all, "a", |_| true, || Rc::new(5)), 5);
    }
}
