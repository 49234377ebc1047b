//! Changes of a session that a server tells in OK. Source: the protocol's "Session State Information".

use super::{CodecError, Reader, lenenc};

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// A system variable has another value.
    Variable {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The current schema.
    Schema(&'a [u8]),
    /// Something of the session changed.
    StateChange(bool),
    /// Identifiers of the transactions that were committed (MySQL).
    Gtids(&'a [u8]),
    /// What the next transaction would begin with, as SQL.
    Characteristics(&'a [u8]),
    /// The transaction's state, a character for each trait.
    Transaction(&'a [u8]),
    /// Of a kind that is not known here.
    Other {
        /// The kind.
        kind: u8,
        /// What it says.
        data: &'a [u8],
    },
}

/// Reads changes; after an error there is nothing more.
pub fn changes(state: &[u8]) -> impl Iterator<Item = Result<Change<'_>, CodecError>> {
    let mut reader = Reader::new(state);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let found = change(&mut reader);
        if found.is_err() {
            reader.rest();
        }
        Some(found)
    })
}

fn change<'a>(reader: &mut Reader<'a>) -> Result<Change<'a>, CodecError> {
    let kind = reader.u8()?;
    let data = reader.string()?;
    let mut inner = Reader::new(data);
    Ok(match kind {
        0 => Change::Variable {
            name: inner.string()?,
            value: inner.string()?,
        },
        1 => Change::Schema(inner.string()?),
        2 => Change::StateChange(inner.u8()? == b'1' || data.get(1) == Some(&b'1')),
        3 => {
            // How they are written; there is one way so far.
            inner.u8()?;
            Change::Gtids(inner.string()?)
        }
        4 => Change::Characteristics(inner.string()?),
        5 => Change::Transaction(inner.string()?),
        kind => Change::Other { kind, data },
    })
}

/// Writes a change.
pub fn write_change(out: &mut Vec<u8>, change: &Change<'_>) {
    let mut data = Vec::new();
    let kind = match change {
        Change::Variable { name, value } => {
            lenenc::write_str(&mut data, name);
            lenenc::write_str(&mut data, value);
            0
        }
        Change::Schema(text) => {
            lenenc::write_str(&mut data, text);
            1
        }
        Change::StateChange(changed) => {
            // One character, without a length of its own.
            data.push(if *changed { b'1' } else { b'0' });
            2
        }
        Change::Gtids(text) => {
            data.push(0);
            lenenc::write_str(&mut data, text);
            3
        }
        Change::Characteristics(text) => {
            lenenc::write_str(&mut data, text);
            4
        }
        Change::Transaction(text) => {
            lenenc::write_str(&mut data, text);
            5
        }
        Change::Other { kind, data: bytes } => {
            data.extend_from_slice(bytes);
            *kind
        }
    };
    out.push(kind);
    lenenc::write_str(out, &data);
}
