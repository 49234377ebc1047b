//! Merging what several members list, page by page, into one page in order.
//!
//! Not what is listed: see [`super::listing`] and [`super::reserved`]. Invariant: an item is given
//! only when every member's next name is known, so the merged page is as complete as the members'
//! own; and what is held at one time is bounded, whatever the members hold.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};

use crate::error::BlobError;
use crate::listing::MAX_PAGE;
use crate::store::StoreFuture;

/// The most items of all members together that are held for one page (plus [`SLACK`] a member).
const MAX_HELD: usize = 4 * MAX_PAGE;
/// What is asked of a member beyond its share of the page.
const SLACK: usize = 8;
/// How many members are asked at once.
const MAX_ASKED: usize = 64;

/// Something that every member lists in the order of its names.
pub(super) trait Paged: Sync {
    /// What is listed.
    type Item: Send;
    /// What it is ordered by.
    type Name: Ord + Clone + Send;

    /// The name of an item.
    fn name(item: &Self::Item) -> Self::Name;

    /// Whether a member's item is to be given.
    fn belongs(&self, member: usize, item: &Self::Item) -> bool;

    /// A member's items behind this name (`None`: from the beginning of what is asked for), in
    /// strictly ascending order, and whether there may be more. No items: there are no more.
    fn fetch(
        &self,
        member: usize,
        after: Option<Self::Name>,
        size: usize,
    ) -> StoreFuture<'_, (Vec<Self::Item>, bool)>;
}

/// How far one member has been read.
struct Cursor<P: Paged> {
    items: VecDeque<P::Item>,
    after: Option<P::Name>,
    more: bool,
    size: usize,
}

struct Merge<'a, P: Paged> {
    paged: &'a P,
    cursors: Vec<Cursor<P>>,
    /// The first name of each member that has items at hand.
    heads: BinaryHeap<Reverse<(P::Name, usize)>>,
    /// The members that have none at hand, and may have more.
    hungry: Vec<usize>,
    largest: usize,
}

/// The first `limit` items of all members, each name once, and whether there are more.
pub(super) async fn merge<P: Paged>(
    paged: &P,
    members: usize,
    limit: usize,
) -> Result<(Vec<P::Item>, bool), BlobError> {
    let limit = limit.clamp(1, MAX_PAGE);
    let enough = limit.saturating_add(1).min(MAX_PAGE);
    let share = limit.div_ceil(members.max(1));
    let first = share.saturating_add(share / 4).saturating_add(SLACK);
    let first = first.min(enough);
    let cursor = |_| Cursor {
        items: VecDeque::new(),
        after: None,
        more: true,
        size: first,
    };
    let mut merge = Merge {
        paged,
        cursors: (0..members).map(cursor).collect(),
        heads: BinaryHeap::new(),
        hungry: (0..members).collect(),
        largest: (MAX_HELD / members.max(1)).max(first).min(enough),
    };
    let mut items: Vec<P::Item> = Vec::new();
    let mut last: Option<P::Name> = None;
    while let Some((name, item)) = merge.next().await? {
        if last.as_ref() == Some(&name) {
            // A common prefix of several members.
            continue;
        }
        if items.len() >= limit {
            return Ok((items, true));
        }
        items.push(item);
        last = Some(name);
    }
    Ok((items, false))
}

impl<P: Paged> Merge<'_, P> {
    async fn next(&mut self) -> Result<Option<(P::Name, P::Item)>, BlobError> {
        while !self.hungry.is_empty() {
            self.refill().await?;
        }
        let Some(Reverse((name, member))) = self.heads.pop() else {
            return Ok(None);
        };
        let cursor = self.cursors.get_mut(member);
        let item = cursor.and_then(|cursor| cursor.items.pop_front());
        self.queue(member);
        Ok(item.map(|item| (name, item)))
    }

    /// Notes a member's next name, or that it must be asked.
    fn queue(&mut self, member: usize) {
        let Some(cursor) = self.cursors.get(member) else {
            return;
        };
        match cursor.items.front() {
            Some(item) => self.heads.push(Reverse((P::name(item), member))),
            None if cursor.more => self.hungry.push(member),
            None => {}
        }
    }

    async fn refill(&mut self) -> Result<(), BlobError> {
        let hungry = std::mem::take(&mut self.hungry);
        let paged = self.paged;
        let mut asked: Vec<StoreFuture<'_, Fetched<P>>> = Vec::with_capacity(hungry.len());
        for member in hungry {
            if let Some(cursor) = self.cursors.get(member) {
                let fetch = paged.fetch(member, cursor.after.clone(), cursor.size);
                asked.push(Box::pin(async move {
                    let (items, more) = fetch.await?;
                    Ok((member, items, more))
                }));
            }
        }
        let answers = iter(asked).buffer_unordered(MAX_ASKED);
        let answers: Vec<Fetched<P>> = answers.try_collect().await?;
        for (member, items, more) in answers {
            self.take_in(member, items, more);
        }
        Ok(())
    }

    fn take_in(&mut self, member: usize, items: Vec<P::Item>, more: bool) {
        let (paged, largest) = (self.paged, self.largest);
        if let Some(cursor) = self.cursors.get_mut(member) {
            cursor.more = more && !items.is_empty();
            if let Some(last) = items.last() {
                cursor.after = Some(P::name(last));
            }
            cursor.size = cursor.size.saturating_mul(2).min(largest);
            let belonging = items.into_iter().filter(|item| paged.belongs(member, item));
            cursor.items.extend(belonging);
        }
        self.queue(member);
    }
}

/// A member, its items, and whether it may have more.
type Fetched<P> = (usize, Vec<<P as Paged>::Item>, bool);
