//! From a text to its verdict, with what is remembered of texts alike.
//!
//! Invariant: nothing is a read while no catalogue is known, and nothing that was reached with one
//! catalogue is told once there is another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::catalogue::Catalogue;
use super::commands::{self, SET_STATEMENT, Shape};
use super::lexer::{self, Notes};
use super::prove::{self, Reason};
use super::remembered::{self, Remembered};
use super::scent::{mentioned, scent};
use super::walls;
use super::words::Words;
use super::{Class, Hidden, Mode, Selects, Tables, Verdict, hidden};

/// Texts that are longer are not proven.
const LONGEST_PROVEN: usize = 256 * 1024;
/// Texts that are longer are not even cut.
const LONGEST: usize = 1 << 20;

/// Tells what texts are; shared by all threads.
#[derive(Debug, Default)]
pub struct Classifier {
    held: RwLock<Held>,
    /// The version of what is held, to be seen without waiting.
    version: AtomicU64,
    remembered: Remembered,
}

/// What is known of the schemas; each change of it has its own number.
#[derive(Debug, Default)]
struct Held {
    version: u64,
    catalogue: Option<Arc<Catalogue>>,
}

impl Classifier {
    /// The number of what is known now: a verdict that was reached under it, or later, holds for as long
    /// as it stands.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What a text is, in a session with this mode and current schema.
    #[must_use]
    pub fn classify(&self, sql: &[u8], mode: Mode, schema: Option<&str>) -> Arc<Verdict> {
        let version = self.version();
        let key = remembered::key(sql, mode, schema, version);
        if let Some(found) = key.and_then(|key| self.remembered.get(key)) {
            return found;
        }
        let (at, catalogue) = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            (held.version, held.catalogue.clone())
        };
        let verdict = Arc::new(judge(catalogue.as_deref(), sql, mode, schema));
        if let Some(key) = key.filter(|_| at == version && !rests_on_literals(&verdict.class)) {
            self.remembered.put(key, &verdict);
        }
        verdict
    }

    fn change(&self, catalogue: Option<Arc<Catalogue>>, held: &mut Held) {
        held.version += 1;
        held.catalogue = catalogue;
        self.version.store(held.version, Ordering::Release);
    }

    /// From now on this is true of the schemas.
    pub fn set_catalogue(&self, catalogue: Catalogue) {
        self.set_catalogue_if(catalogue, || true);
    }

    /// As [`Self::set_catalogue`], if that is still so once nobody else can change it; whether it was.
    pub fn set_catalogue_if(&self, catalogue: Catalogue, still: impl FnOnce() -> bool) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let still = still();
        if still {
            self.change(Some(Arc::new(catalogue)), &mut held);
        }
        still
    }

    /// Nothing is known of the schemas: nothing is a read until a catalogue is set again.
    pub fn forget(&self) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        self.change(None, &mut held);
    }

    /// What is known of the schemas.
    #[must_use]
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.catalogue.clone()
    }
}

/// Whether a class depends on what a literal says: it is not that of all texts alike.
fn rests_on_literals(class: &Class) -> bool {
    matches!(
        class,
        Class::Set
            | Class::SetAutocommit(_)
            | Class::OwnSet { .. }
            | Class::OwnMisplaced
            | Class::Kill { .. }
    )
}

fn judge(catalogue: Option<&Catalogue>, sql: &[u8], mode: Mode, schema: Option<&str>) -> Verdict {
    if sql.len() > LONGEST {
        // Most are bulk inserts; what they do to the session, the server tells.
        let mut verdict = Verdict {
            ddl: mode.multi_statements,
            single: !mode.multi_statements,
            may_set_last_insert_id: true,
            hidden: Hidden::Routines,
            ..Verdict::of_primary("long")
        };
        keep_if_bound(&mut verdict, sql);
        return verdict;
    }
    let Ok((tokens, notes)) = lexer::tokens(sql, mode) else {
        let mut verdict = Verdict {
            hidden: Hidden::Routines,
            asked: mentioned(sql),
            may_set_last_insert_id: true,
            ..Verdict::of_primary("unlexed")
        };
        if names_variable(sql) {
            verdict.class = Class::Pin("variable");
        }
        keep_if_bound(&mut verdict, sql);
        return verdict;
    };
    let merges = !mode.multi_statements;
    let words = Words {
        sql,
        tokens: &tokens,
    };
    let mut verdict = verdict(catalogue, words, notes, schema, merges);
    // In some character sets a quote or a backslash may be half of a character.
    if !mode.legible && !sql.is_ascii() && verdict.class == Class::Read {
        verdict.class = Class::Primary("charset");
    }
    // What the words are depends on the server, or on the character set.
    if notes.executable || notes.foreign || (!mode.legible && !sql.is_ascii()) {
        keep_if_bound(&mut verdict, sql);
    }
    verdict
}

/// The session of a text that is not understood keeps its connection if anything in it may bind it.
fn keep_if_bound(verdict: &mut Verdict, sql: &[u8]) {
    if let Some(reason) = scent(sql).filter(|_| !matches!(verdict.class, Class::Pin(_))) {
        verdict.class = Class::Pin(reason);
    }
}

fn verdict(
    catalogue: Option<&Catalogue>,
    words: Words<'_>,
    notes: Notes,
    schema: Option<&str>,
    merges: bool,
) -> Verdict {
    let mut statements = words.statements();
    if merges && statements.first().is_some_and(commands::has_body) {
        // Semicolons belong to a body, and what it says is not said to this session.
        statements = vec![words];
    }
    let mut verdict = Verdict {
        hint_primary: notes.hint,
        single: statements.len() <= 1,
        ..Verdict::of_primary("several")
    };
    let (mut pin, mut own) = (None, false);
    verdict.only_reads = !statements.is_empty();
    for (place, statement) in statements.iter().enumerate() {
        let known = class_of(catalogue, statement, notes, schema);
        verdict.only_reads &= known.class == Class::Read;
        verdict.asks_last_insert_id |= known.asks_last_insert_id;
        if verdict.single {
            (verdict.asked, verdict.tables, verdict.selects) =
                (known.asked, known.tables, known.selects);
        } else {
            note_one_of_several(&mut verdict, &known, place);
        }
        verdict.calculates_found_rows |= known.calculates_found_rows;
        verdict.may_set_last_insert_id |= known.may_set_last_insert_id;
        verdict.uses_now |= known.uses_now;
        verdict.restores |= known.restores;
        verdict.commits |= known.commits;
        verdict.takes_number |= known.takes_number;
        verdict.may_release |=
            known.may_release || (!verdict.single && commands::sets_completion(statement));
        verdict.untold.extend(known.untold);
        verdict.hidden = verdict.hidden.max(known.hidden);
        verdict.ddl |= known.ddl;
        match known.class {
            Class::Pin(reason) => pin = pin.or(Some(reason)),
            Class::OwnShow { .. }
            | Class::OwnSet { .. }
            | Class::OwnReset { .. }
            | Class::OwnMisplaced => own = true,
            _ => {}
        }
        verdict.class = known.class;
    }
    if statements.is_empty() {
        let class = if notes.executable {
            Class::Primary("executable-comment")
        } else {
            Class::Empty
        };
        verdict.class = class;
    } else if statements.len() > 1 {
        verdict.class = match pin {
            _ if own => Class::OwnMisplaced,
            Some(reason) => Class::Pin(reason),
            None => Class::Primary("several"),
        };
    }
    verdict
}

/// What one of several statements asks about those before the text, and leaves for those behind it.
fn note_one_of_several(verdict: &mut Verdict, known: &Verdict, place: usize) {
    // What a statement of this text has told is asked of that.
    verdict.asked.last |= known.asked.last && place == 0;
    verdict.asked.number |= known.asked.number && place == 0;
    verdict.asked.rows |= known.asked.rows && verdict.selects != Selects::Yes;
    verdict.asked.warnings |= known.asked.warnings && verdict.tables != Tables::Yes;
    if known.selects == Selects::Yes {
        verdict.selects = Selects::Yes;
    }
    if known.tables == Tables::Yes {
        verdict.tables = Tables::Yes;
    }
}

/// What one statement is.
fn class_of(
    catalogue: Option<&Catalogue>,
    words: &Words<'_>,
    notes: Notes,
    schema: Option<&str>,
) -> Verdict {
    let mut verdict = Verdict::of_primary("unproven");
    let flags = walls::flags(words);
    verdict.asks_last_insert_id = flags.asks_last_insert_id;
    verdict.asked = flags.asked;
    verdict.calculates_found_rows = flags.calculates_found_rows;
    verdict.may_set_last_insert_id = flags.may_set_last_insert_id || commands::may_insert(words);
    verdict.uses_now = flags.uses_now;
    let program = commands::has_body(words);
    verdict.class = match commands::shape(words) {
        Shape::Known(class) => class,
        Shape::Query => match flags.pin {
            Some(reason) => Class::Pin(reason),
            None => match read(catalogue, words, notes, schema) {
                Ok(uses_now) => {
                    verdict.uses_now |= uses_now;
                    Class::Read
                }
                Err(reason) => Class::Primary(reason),
            },
        },
    };
    verdict.ddl = verdict.class == Class::Ddl;
    verdict.restores = verdict.class == Class::Pin(SET_STATEMENT);
    verdict.commits = commands::commits(words, &verdict.class);
    verdict.may_release = verdict.class == Class::Primary(commands::RELEASE);
    verdict.asked.warnings |= verdict.class == Class::ShowWarnings;
    if let Some(reason) = flags.pin
        && !program
        && !matches!(verdict.class, Class::Pin(_))
    {
        verdict.class = Class::Pin(reason);
    }
    if !program
        && !matches!(verdict.class, Class::Pin(_) | Class::Ddl)
        && catalogue.is_some_and(|catalogue| catalogue.takes_number(words))
    {
        verdict.class = Class::Pin("last-value");
    }
    let numbers = matches!(
        verdict.class,
        Class::Primary("sequence") | Class::Pin("last-value")
    );
    verdict.takes_number = numbers && !verdict.asked.number;
    // Whether the words of such a comment are said at all depends on the server.
    let kept = matches!(
        verdict.class,
        Class::Pin(_) | Class::Ddl | Class::Primary(_) | Class::LoadLocal
    );
    if notes.executable && !kept {
        verdict.class = Class::Primary("executable-comment");
    }
    verdict.hidden = hidden::of(catalogue, words, &verdict.class);
    if notes.executable {
        verdict.hidden = Hidden::Routines;
    }
    verdict.tables = tables(catalogue, words, &verdict);
    asks_unseen(&mut verdict, words);
    verdict.selects = selects(words);
    if notes.executable {
        (verdict.selects, verdict.tables) = (Selects::Unknown, Tables::Unknown);
    }
    note_untold(&mut verdict, words, notes);
    verdict
}

/// Whether a statement opens tables: MariaDB keeps the warnings of before through those that open none.
fn tables(catalogue: Option<&Catalogue>, words: &Words<'_>, verdict: &Verdict) -> Tables {
    const WRITES: [&str; 5] = ["insert", "update", "delete", "replace", "load"];
    const NONE: [&str; 7] = [
        "begin",
        "start",
        "commit",
        "rollback",
        "savepoint",
        "release",
        "use",
    ];
    let says = |wanted: &[&str]| (1..words.len()).any(|at| words.any(at, wanted));
    if words.any(0, &WRITES) {
        return Tables::Yes;
    }
    let hides = hidden::may_run(catalogue, words);
    let shown = verdict.class == Class::ShowWarnings;
    let values = words.any(0, &["set", "do"]) && !says(&["select"]);
    let constant = words.is(0, "select") && !says(&["from", "select", "table", "values"]);
    if !hides && (shown || values || constant || words.any(0, &NONE)) {
        return Tables::No;
    }
    // `EXTRACT(YEAR FROM …)` and its kin take theirs from nowhere.
    let inner = ["extract", "trim", "substring", "substr", "mid", "dual"];
    let selects = words.is(0, "select") && says(&["from"]) && !says(&inner);
    if selects || selects_shown(words) {
        return Tables::Yes;
    }
    Tables::Unknown
}

/// Questions about statements before that are said in other ways: a variable's name in quotes or behind
/// blanks, a text in quotes.
fn asks_unseen(verdict: &mut Verdict, words: &Words<'_>) {
    if words.are(0, &["execute", "immediate"]) {
        verdict.asked = mentioned(words.sql);
    } else if names_variable(words.sql) {
        verdict.asked.warnings |= mentioned(words.sql).warnings;
    }
}

/// Whether SHOW reads a table of `information_schema`.
fn selects_shown(words: &Words<'_>) -> bool {
    const SHOWN: [&str; 10] = [
        "tables",
        "columns",
        "fields",
        "index",
        "indexes",
        "keys",
        "databases",
        "schemas",
        "status",
        "variables",
    ];
    let before = ["full", "extended", "global", "session", "local"];
    let named = |at: usize| words.any(at, &SHOWN);
    words.is(0, "show") && (named(1) || (words.any(1, &before) && named(2)))
}

/// Whether an UPDATE or DELETE names more than one table, as far as its words tell.
fn of_several_tables(words: &Words<'_>) -> bool {
    let names = (1..words.len()).take_while(|at| !words.any(*at, &["set", "where"]));
    let mut names = names.skip_while(|at| words.any(*at, &["low_priority", "ignore", "quick"]));
    names.any(|at| words.mark(at, b',') || words.any(at, &["join", "straight_join", "using"]))
        || (words.is(0, "delete") && !words.any(1, &["from", "low_priority", "ignore", "quick"]))
}

/// Whether the rows of a statement are what `FOUND_ROWS()` counts. Of EXPLAIN and most of SHOW they are not.
fn selects(words: &Words<'_>) -> Selects {
    if words.is(0, "values") {
        // MariaDB does not count them.
        return Selects::Unknown;
    }
    if words.any(0, &["update", "delete"]) && of_several_tables(words) {
        // MariaDB counts what they find.
        return Selects::Unknown;
    }
    let queries = words.any(0, &["select", "with", "table"]) || words.mark(0, b'(');
    if queries || selects_shown(words) {
        Selects::Yes
    } else if (1..words.len()).any(|at| words.any(at, &["select", "with"])) {
        Selects::Unknown
    } else {
        Selects::No
    }
}

/// Variables that are set as `@@name = …`: MariaDB tells of all other ways to set one, and not of this.
/// Where the text does not show whether and what it sets so, its session keeps its connection.
fn note_untold(verdict: &mut Verdict, words: &Words<'_>, notes: Notes) {
    let pinned = matches!(verdict.class, Class::Pin(_));
    let program = notes.executable || words.is(0, "begin");
    if program && !pinned && verdict.hidden == Hidden::Routines {
        if names_variable(words.sql) {
            verdict.class = Class::Pin("variable");
        }
        return;
    }
    match commands::untold(words) {
        Some(names) => verdict.untold = names,
        None if pinned => {}
        None => verdict.class = Class::Pin("variable"),
    }
}

fn names_variable(sql: &[u8]) -> bool {
    sql.windows(2).any(|pair| pair == b"@@")
}

fn read(
    catalogue: Option<&Catalogue>,
    words: &Words<'_>,
    notes: Notes,
    schema: Option<&str>,
) -> Result<bool, Reason> {
    if notes.executable {
        return Err("executable-comment");
    }
    if notes.sets_by_hint {
        return Err("optimizer-hint");
    }
    if notes.foreign {
        return Err("charset");
    }
    if words.sql.len() > LONGEST_PROVEN {
        return Err("too-long");
    }
    let catalogue = catalogue.ok_or("no-catalogue")?;
    let proof = prove::query(catalogue, words, schema)?;
    let flags = walls::flags(words);
    if flags.may_set_last_insert_id || flags.asks_last_insert_id || flags.asked.anything() {
        return Err("function");
    }
    Ok(proof.uses_now)
}
