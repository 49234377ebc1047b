//! Reading a table of the file by its description.
//!
//! Not the cross-checks: nothing here looks at two tables at once. Invariant: a faulty value is
//! reported once and then absent, so no later check reports it again.

mod named;
mod scalar;
mod secret;
mod suggest;
mod table;

use toml_edit::{Array, ArrayOfTables, Item, TableLike, Value as TomlValue};

pub(crate) use self::suggest::which;
use crate::fault::{ConfigError, Fault, Notice, Place, Warning};
use crate::field::Kind;
use crate::source::Source;
use crate::value::Decoded;

/// The most faults that are told of one file.
const FAULTS_MOST: usize = 1000;

/// Where values of the environment come from.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads tables and gathers what is wrong with them.
pub(crate) struct Decoder<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) env: Env<'a>,
    faults: Vec<(usize, Fault)>,
    warnings: Vec<(usize, Warning)>,
}

/// A value as written, or a default.
pub(crate) enum Raw<'t> {
    Text(&'t str),
    Integer(i64),
    Flag(bool),
    Array(&'t Array),
    Table(&'t dyn TableLike),
    Tables(&'t ArrayOfTables),
    Other(&'static str),
}

impl<'t> Raw<'t> {
    fn of(item: &'t Item) -> Self {
        match item {
            Item::None => Self::Other("nothing"),
            Item::Table(table) => Self::Table(table),
            Item::ArrayOfTables(tables) => Self::Tables(tables),
            Item::Value(value) => Self::of_value(value),
        }
    }

    fn of_value(value: &'t TomlValue) -> Self {
        match value {
            TomlValue::String(text) => Self::Text(text.value()),
            TomlValue::Integer(number) => Self::Integer(*number.value()),
            TomlValue::Boolean(flag) => Self::Flag(*flag.value()),
            TomlValue::Array(array) => Self::Array(array),
            TomlValue::InlineTable(table) => Self::Table(table),
            TomlValue::Float(_) => Self::Other("a number with a fraction"),
            TomlValue::Datetime(_) => Self::Other("a date"),
        }
    }

    /// What it is, for a message.
    fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Tables(_) => "a list of tables",
            Self::Other(name) => name,
        }
    }
}

/// A key path and where its value stands.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'s> {
    pub(crate) path: &'s str,
    pub(crate) at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(source: &'a Source<'a>, env: Env<'a>) -> Self {
        Self {
            source,
            env,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn fault(&mut self, spot: Spot<'_>, error: ConfigError) {
        let place = self.source.place(spot.at, spot.path);
        self.fault_at(spot.at, place, error);
    }

    /// A fault of one key of a table.
    pub(crate) fn fault_in(&mut self, table: &Decoded, key: &str, error: ConfigError) {
        self.fault(
            Spot {
                path: &table.key(key),
                at: table.at(key),
            },
            error,
        );
    }

    pub(crate) fn fault_at(&mut self, at: usize, place: Place, error: ConfigError) {
        match self.faults.len() {
            count if count < FAULTS_MOST => self.faults.push((at, Fault { place, error })),
            FAULTS_MOST => {
                let error = ConfigError::TooMany { limit: FAULTS_MOST };
                self.faults.push((
                    usize::MAX,
                    Fault {
                        place: self.source.whole(),
                        error,
                    },
                ));
            }
            _ => {}
        }
    }

    /// Whether there are so many faults that no more are told.
    pub(crate) fn is_full(&self) -> bool {
        self.faults.len() > FAULTS_MOST
    }

    pub(crate) fn warn(&mut self, spot: Spot<'_>, notice: Notice) {
        let place = self.source.place(spot.at, spot.path);
        self.warnings.push((spot.at, Warning { place, notice }));
    }

    pub(crate) fn warn_of_file(&mut self, notice: Notice) {
        self.warnings.push((
            0,
            Warning {
                place: self.source.whole(),
                notice,
            },
        ));
    }

    /// Everything that was found, in the order of the file.
    pub(crate) fn finish(mut self) -> (Vec<Fault>, Vec<Warning>) {
        self.faults.sort_by_key(|(at, _)| *at);
        self.warnings.sort_by_key(|(at, _)| *at);
        (
            self.faults.into_iter().map(|(_, fault)| fault).collect(),
            self.warnings
                .into_iter()
                .map(|(_, warning)| warning)
                .collect(),
        )
    }

    fn wrong_type(&mut self, kind: Kind, raw: &Raw<'_>, spot: Spot<'_>) {
        self.fault(spot, wrong_type(kind, raw));
    }
}

/// The fault of a value of another type.
fn wrong_type(kind: Kind, raw: &Raw<'_>) -> ConfigError {
    ConfigError::WrongType {
        expected: kind.expected(),
        found: raw.type_name(),
        example: kind.example(),
    }
}
