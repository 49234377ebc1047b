//! The prepared statements of a session, by the client's names for them.
//!
//! Not what a connection has prepared ([`Prepared`]). Invariant: a name stands for what the client
//! would find under it once all that it has sent is done, or has failed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::expected::Freed;
use super::translate::Unfit;
use crate::class::Verdict;
use crate::postgres::codec;
use crate::postgres::described::Shape;
use crate::postgres::settings::Settings;
use crate::postgres::statement::{Prepared, Statement, Statements};

/// Prepared statements of one session, the most.
const MAX_NAMES: usize = 10_000;
/// Texts of prepared statements that one session may keep, in bytes, before it may prepare no more long
/// ones; shorter ones are bounded by their number.
const MAX_TEXT_BYTES: usize = 64 << 20;
const LONG_TEXT: usize = 1024;
/// Changes of names that are not known to be so yet, the most.
const MAX_JOURNAL: usize = 65_536;
/// Changes of the unnamed statement kept at once.
const MAX_UNNAMED: usize = 16;
/// So many changes are looked through for a name; with more, all names wait until they are known.
const LOOKED_THROUGH: usize = 1024;

/// What a verdict holds under: [`crate::class::Classifier::version`], and whether texts can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Under {
    pub(super) version: u64,
    pub(super) legible: bool,
}

/// The verdict about a text that does not change, so that it is not read for each use.
#[derive(Debug, Default)]
struct Remembered(RefCell<Option<(Under, Arc<Verdict>)>>);

impl Remembered {
    fn get(&self, under: Under, judge: impl FnOnce() -> Arc<Verdict>) -> Arc<Verdict> {
        let mut place = self.0.borrow_mut();
        match &*place {
            Some((then, verdict)) if *then == under => Arc::clone(verdict),
            _ => {
                let verdict = judge();
                *place = Some((under, Arc::clone(&verdict)));
                verdict
            }
        }
    }
}

/// Text and types of the unnamed statement.
#[derive(Debug)]
pub(super) struct Unnamed {
    pub(super) sql: Box<[u8]>,
    pub(super) types: Box<[u8]>,
    verdict: Remembered,
    /// What it lets go of.
    pub(super) frees: Option<Freed>,
}

impl Unnamed {
    pub(super) fn new(sql: &[u8], types: &[u8]) -> Self {
        Self {
            sql: sql.into(),
            types: types.into(),
            verdict: Remembered::default(),
            frees: None,
        }
    }
}

/// What a name stands for.
#[derive(Debug)]
struct Named {
    statement: Arc<Statement>,
    verdict: Remembered,
    /// As what it was described to the client, who may read all later rows by that.
    told: Option<Shape>,
}

impl From<Arc<Statement>> for Named {
    fn from(statement: Arc<Statement>) -> Self {
        Self {
            statement,
            verdict: Remembered::default(),
            told: None,
        }
    }
}

/// A session's names, and what its connection has prepared.
type Before = (HashMap<Box<[u8]>, Named>, Prepared);

/// A change of what a name stands for.
#[derive(Debug)]
struct Change {
    /// The how many-eth it is of its session.
    number: u64,
    name: Box<[u8]>,
    before: Option<Named>,
    /// The statement that it stands for since.
    after: Option<u64>,
}

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Named>,
    any_told: bool,
    /// Text and types of the unnamed one.
    pub(super) unnamed: Option<Unnamed>,
    /// Changes of the unnamed one that are not known to be so yet, by their number: what it was before, and
    /// whether that was the connection's.
    unnamed_before: VecDeque<(u64, Option<Unnamed>, bool)>,
    /// How to undo what the frames of the running batch changed.
    journal: Vec<Change>,
    /// Changes so far.
    changes: u64,
    /// What the statement lets go of that was bound last.
    pub(super) freeing: Option<Freed>,
    /// What there was before each statement under way that lets go of all.
    emptied: VecDeque<Before>,
}

impl Names {
    /// The text of a statement, by the client's name for it.
    pub(super) fn text(&self, name: &[u8]) -> Option<&[u8]> {
        if name.is_empty() {
            return self.unnamed.as_ref().map(|it| &*it.sql);
        }
        self.named.get(name).map(|it| &*it.statement.sql)
    }

    /// What a statement is, by the client's name for it. It is judged once, and again when it may be
    /// something else.
    pub(super) fn verdict(
        &self,
        name: &[u8],
        under: Under,
        judge: impl FnOnce(&[u8]) -> Arc<Verdict>,
    ) -> Option<Arc<Verdict>> {
        if name.is_empty() {
            let it = self.unnamed.as_ref()?;
            return Some(it.verdict.get(under, || judge(&it.sql)));
        }
        let it = self.named.get(name)?;
        Some(it.verdict.get(under, || judge(&it.statement.sql)))
    }

    /// Takes a statement under a new name without asking a server: one that some server has prepared
    /// before, or with `unproven` any. Whether that is so.
    pub(super) fn adopt(
        &mut self,
        parse: &codec::Parse<'_>,
        statements: &Statements,
        settings: &Settings,
        unproven: bool,
    ) -> bool {
        if parse.name.is_empty()
            || self.named.contains_key(parse.name)
            || self.has_room(parse.sql.len()).is_err()
        {
            return false;
        }
        let statement = statements.intern(settings.meaning(), parse.sql, parse.types);
        let taken = unproven || statement.proven.load(Ordering::Relaxed);
        if taken {
            self.named.insert(parse.name.into(), statement.into());
        }
        taken
    }

    /// Takes a statement that no server is asked to prepare; `false`: there is one of that name.
    pub(super) fn keep(
        &mut self,
        parse: &codec::Parse<'_>,
        statements: &Statements,
    ) -> Result<bool, Unfit> {
        if parse.name.is_empty() {
            self.unnamed = Some(Unnamed::new(parse.sql, parse.types));
            return Ok(true);
        }
        if self.named.contains_key(parse.name) {
            return Ok(false);
        }
        self.has_room(parse.sql.len())?;
        let statement = statements.private(parse.sql, parse.types);
        self.named.insert(parse.name.into(), statement.into());
        Ok(true)
    }

    /// A statement, by the client's name for it.
    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<Statement>> {
        self.named.get(name).map(|it| Arc::clone(&it.statement))
    }

    /// Whether another name may be given to a text of so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> Result<(), Unfit> {
        if self.named.len() >= MAX_NAMES {
            return Err(Unfit::TooMany);
        }
        if bytes >= LONG_TEXT && self.bytes() > MAX_TEXT_BYTES {
            return Err(Unfit::TooLong);
        }
        self.has_journal()
    }

    /// Bytes of all texts that are kept.
    fn bytes(&self) -> usize {
        let before = self.journal.iter().filter_map(|it| it.before.as_ref());
        let emptied = self.emptied.iter().flat_map(|(named, _)| named.values());
        let all = self.named.values().chain(before).chain(emptied);
        all.map(|it| it.statement.sql.len()).sum()
    }

    /// Whether another change can be undone.
    pub(super) fn has_journal(&self) -> Result<(), Unfit> {
        if self.journal.len() >= MAX_JOURNAL {
            return Err(Unfit::TooManyAtOnce);
        }
        Ok(())
    }

    /// Whether a name is being changed.
    pub(super) fn is_changing(&self) -> bool {
        !self.journal.is_empty()
    }

    /// Whether this name is, as far as the journal is looked through for it.
    pub(super) fn is_changed(&self, name: &[u8]) -> bool {
        if name.is_empty() {
            return false;
        }
        let found = self
            .journal
            .iter()
            .take(LOOKED_THROUGH)
            .any(|it| *it.name == *name);
        found || self.journal.len() > LOOKED_THROUGH
    }

    /// Another text is the unnamed statement's; the number of this change. `here`: what it was before was
    /// the connection's.
    pub(super) fn set_unnamed(&mut self, unnamed: Unnamed, here: bool) -> u64 {
        self.changes += 1;
        let before = self.unnamed.replace(unnamed);
        if self.unnamed_before.len() == MAX_UNNAMED {
            self.unnamed_before.pop_front();
        }
        self.unnamed_before.push_back((self.changes, before, here));
        self.changes
    }

    /// The server has skipped a change of the unnamed statement; whether what it is then is the
    /// connection's, unless it was changed since.
    pub(super) fn undo_unnamed(&mut self, number: u64) -> Option<bool> {
        let Some(at) = self.unnamed_before.iter().position(|it| it.0 == number) else {
            if !self.unnamed_before.is_empty() {
                // More are under way than are kept: whoever names it is told that there is none.
                self.unnamed = None;
            }
            return None;
        };
        let (_, before, here) = self.unnamed_before.remove(at)?;
        if let Some(later) = self.unnamed_before.get_mut(at) {
            (later.1, later.2) = (before, here);
            return None;
        }
        self.unnamed = before;
        Some(here)
    }

    /// The same of one that has failed: there is none then.
    pub(super) fn fail_unnamed(&mut self, number: u64) {
        let found = self.unnamed_before.iter().position(|it| it.0 == number);
        match found.map(|at| at + 1) {
            Some(next) if next < self.unnamed_before.len() => {
                if let Some(later) = self.unnamed_before.get_mut(next) {
                    (later.1, later.2) = (None, true);
                }
            }
            _ => self.unnamed = None,
        }
    }

    /// All that the frames since the last call did is so.
    pub(super) fn settle(&mut self) {
        self.unnamed_before.clear();
        self.journal.clear();
        self.emptied.clear();
    }

    /// All are let go of by a statement that is sent now.
    pub(super) fn empty(&mut self, prepared: &mut Prepared) {
        let before = (std::mem::take(&mut self.named), std::mem::take(prepared));
        self.emptied.push_back(before);
    }

    /// Whether it is open if a statement lets go of all.
    pub(super) fn is_emptying(&self) -> bool {
        !self.emptied.is_empty()
    }

    /// A statement has let go of all; whether it was known when it was sent.
    pub(super) fn note_emptied(&mut self) -> bool {
        self.emptied.pop_front().is_some()
    }

    /// A statement that should let go of all has failed.
    pub(super) fn not_emptied(&mut self, prepared: Option<&mut Prepared>) {
        let Some((named, kept)) = self.emptied.pop_front() else {
            return;
        };
        for (name, statement) in named {
            self.named.entry(name).or_insert(statement);
        }
        if let Some(prepared) = prepared {
            prepared.join(kept);
        }
    }

    /// A statement that should let go of one has failed.
    pub(super) fn not_freed(&mut self, freed: Freed, prepared: Option<&mut Prepared>) {
        if let Some(prepared) = prepared.filter(|_| freed.was_there) {
            prepared.insert(freed.statement.id);
        }
        self.named.entry(freed.name).or_insert_with(|| Named {
            told: freed.told,
            ..Named::from(freed.statement)
        });
    }

    /// Undoes what the frames since the last [`Names::settle`] did.
    pub(super) fn undo(&mut self) {
        while let Some(change) = self.journal.pop() {
            self.restore(change.name, change.before);
        }
    }

    fn restore(&mut self, name: Box<[u8]>, before: Option<Named>) {
        match before {
            Some(named) => self.named.insert(name, named),
            None => self.named.remove(&name),
        };
    }

    fn note(&mut self, name: &[u8], before: Option<Named>, after: Option<u64>) -> u64 {
        self.changes += 1;
        self.journal.push(Change {
            number: self.changes,
            name: name.into(),
            before,
            after,
        });
        self.changes
    }

    /// Takes one change back, wherever it stands among others of its name.
    fn take_back(&mut self, at: usize) {
        let change = self.journal.remove(at);
        // What lets go of all has taken it away meanwhile, and may fail.
        let taken = self.emptied.iter_mut().find_map(|(named, _)| {
            let there = named.get(&change.name).map(|it| it.statement.id);
            (there.is_some() && there == change.after).then_some(named)
        });
        if let Some(named) = taken {
            match change.before {
                Some(before) => named.insert(change.name, before),
                None => named.remove(&change.name),
            };
            return;
        }
        let rest = self.journal.get_mut(at..).unwrap_or_default();
        match rest.iter_mut().find(|later| later.name == change.name) {
            Some(later) => later.before = change.before,
            None => self.restore(change.name, change.before),
        }
    }

    /// A statement could not be prepared, before a statement that lets go of all.
    pub(super) fn not_prepared(&mut self, id: u64) {
        for (_, prepared) in &mut self.emptied {
            prepared.remove(id);
        }
    }

    /// The server has skipped a change, or could not make it.
    pub(super) fn undo_one(&mut self, number: u64) {
        let found = self.journal.iter().position(|it| it.number == number);
        if let Some(at) = found {
            self.take_back(at);
        }
    }

    /// Forgets one; the number of this change, if there was one.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<u64> {
        let before = self.named.remove(name)?;
        Some(self.note(name, Some(before), None))
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.named.clear();
        self.unnamed = None;
        self.settle();
    }

    /// Gives a name; the number of this change.
    pub(super) fn insert(&mut self, name: &[u8], statement: Arc<Statement>) -> u64 {
        let after = statement.id;
        let before = self.named.insert(name.into(), statement.into());
        self.note(name, before, Some(after))
    }

    /// The statement of a name, as it is read under `settings`. What the client was told of it holds.
    pub(super) fn under(
        &mut self,
        name: &[u8],
        settings: &Settings,
        statements: &Statements,
    ) -> Option<Arc<Statement>> {
        let it = self.named.get(name)?;
        let (statement, told, now) = (&it.statement, it.told, settings.meaning());
        let same = |of: &Arc<str>| Arc::ptr_eq(of, now) || **of == **now;
        if statement.meaning.as_ref().is_none_or(same) {
            return Some(Arc::clone(statement));
        }
        let again = statements.intern(now, &statement.sql, &statement.types);
        self.insert(name, Arc::clone(&again));
        if let Some(named) = self.named.get_mut(name) {
            named.told = told;
        }
        Some(again)
    }

    /// As what a statement was described to the client.
    pub(super) fn told(&self, name: &[u8]) -> Option<Shape> {
        if !self.any_told {
            return None;
        }
        self.named.get(name)?.told
    }

    /// A statement was described to the client.
    pub(super) fn note_told(&mut self, name: &[u8], id: u64, shape: Shape) {
        if let Some(named) = self.named.get_mut(name)
            && named.statement.id == id
        {
            named.told = Some(shape);
            self.any_told = true;
        }
    }

    /// Whether anything was described to the client.
    pub(super) fn any_told(&self) -> bool {
        self.any_told
    }
}
