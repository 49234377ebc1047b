//! A server's answer on its way to the client: where it ends, and what it tells of the session.
//!
//! Pure: bytes in, bytes out. Rows pass as they came, piece by piece; only what a client of other
//! capabilities reads differently is written anew. Source: the client/server protocol's chapters
//! "Text Protocol", "Binary Protocol" and "`OK_Packet`". Invariant: of an answer no byte is taken for
//! one of the next, and the packets a client gets are numbered without a gap.

use bytes::{Buf, BytesMut};

use crate::mysql::codec::{
    self, Change, CodecError, ErrPacket, HEADER_BYTES, MAX_PACKET, OkPacket, capabilities, changes,
    status,
};

/// The longest packet that must be here whole to be read: an end of rows, an error, the head of an
/// answer.
const MAX_CONTROL: usize = 1 << 20;

/// `ER_OPTION_PREVENTS_STATEMENT`: a replica's `read_only`, among others.
const OPTION_PREVENTS: u16 = 1290;
/// `ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION`: what a server says for which that does not hold.
const TRANSACTION_READ_ONLY: ErrPacket<'static> = ErrPacket {
    code: 1792,
    sqlstate: *b"25006",
    message: b"Cannot execute statement in a READ ONLY transaction",
};

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// OK, an error, result sets, or a request for a file.
    Results,
    /// A prepared statement's description, under the number the client is to know it by.
    Prepared(u32),
    /// Rows of a cursor.
    Rows,
    /// One packet: OK, an end or an error.
    Single,
    /// Descriptions of columns.
    Fields,
    /// One packet of text.
    Text,
}

/// Where in the answer the next packet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    /// So many descriptions are still to come, then rows.
    Columns {
        left: u64,
    },
    /// `eof_owed`: the client expects an end of the columns that the server did not send.
    Rows {
        eof_owed: bool,
    },
    Parameters {
        left: u16,
        columns: u16,
    },
    PreparedColumns {
        left: u16,
    },
    Fields,
    Done,
}

/// What became of the bytes that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// More must come.
    More,
    /// The answer is complete.
    Done,
    /// The server asks for a file of the client.
    Infile,
}

/// A change that the session must know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noted {
    /// A variable has a new value.
    Variable(Vec<u8>, Vec<u8>),
    /// The current schema.
    Schema(Vec<u8>),
    /// Identifiers of transactions.
    Gtids(Vec<u8>),
    /// The transaction's state, a character for each trait.
    Transaction(Vec<u8>),
    /// What the next transaction would begin with.
    Characteristics(Vec<u8>),
    /// Something changed that need not be told; `alone`: what else changed does not explain it.
    Untracked { alone: bool },
}

/// What an answer told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The server's status flags, of the last packet that has any.
    pub(super) status: Option<u16>,
    /// The insert id of the last OK that had one.
    pub(super) insert_id: u64,
    /// Warnings of the last statement.
    pub(super) warnings: u16,
    /// The error that ended it.
    pub(super) error: Option<(u16, [u8; 5], Vec<u8>)>,
    /// What changed in the session.
    pub(super) noted: Vec<Noted>,
    /// Result sets begun, and OKs without one.
    pub(super) parts: u32,
    /// One of them was a result set.
    pub(super) has_rows: bool,
    /// A prepared statement: its number on the server, columns and parameters.
    pub(super) prepared: Option<(u32, u16, u16)>,
}

/// What a client's packets must say otherwise than the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Edit {
    /// Status flags that hold for the session, whatever the connection's are.
    pub(super) set: u16,
    /// Status flags that do not.
    pub(super) clear: u16,
    /// All changes are handed on: the client has asked the server for them itself.
    pub(super) all_changes: bool,
    /// A READ ONLY transaction is under way on a server that refuses writes anyhow.
    pub(super) read_only: bool,
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Relay {
    shape: Shape,
    stage: Stage,
    /// What the client negotiated.
    client: u64,
    /// What was negotiated with the server.
    upstream: u64,
    edit: Edit,
    /// The number of the next packet to the client.
    sequence: u8,
    /// What the server expects behind its last short packet: its numbers are not the client's.
    file_number: u8,
    /// Bytes of the packet that passes which are still to come.
    passing: usize,
    /// The packet that passes is full, so the next one goes on with it.
    continued: bool,
    /// The client expects an end of descriptions once the packet has passed.
    eof_due: bool,
    /// The status a client is told at an end of columns before any is known.
    status: u16,
    /// Where in what waits for the client such a status stands, which the end of the rows tells.
    guessed: Option<usize>,
    pub(super) outcome: Outcome,
}

impl Relay {
    /// An answer of `shape` whose first packet to the client has the number `sequence`.
    pub(super) fn new(
        shape: Shape,
        client: u64,
        upstream: u64,
        sequence: u8,
        status: u16,
        edit: Edit,
    ) -> Self {
        let stage = match shape {
            Shape::Results | Shape::Prepared(_) | Shape::Single | Shape::Text => Stage::First,
            Shape::Rows => Stage::Rows { eof_owed: false },
            Shape::Fields => Stage::Fields,
        };
        Self {
            shape,
            stage,
            client,
            upstream,
            edit,
            sequence,
            file_number: 0,
            passing: 0,
            continued: false,
            eof_due: false,
            status,
            guessed: None,
            outcome: Outcome::default(),
        }
    }

    /// The number of the first packet of a file that the server has asked for.
    pub(super) fn file_number(&self) -> u8 {
        self.file_number
    }

    /// The number that the client is to give the first packet of such a file.
    pub(super) fn client_number(&self) -> u8 {
        self.sequence
    }

    /// The client has sent a file in packets, the last of which had this number.
    pub(super) fn file_sent(&mut self, last: u8) {
        self.sequence = last.wrapping_add(1);
    }

    /// What was there for the client is on its way.
    pub(super) fn flushed(&mut self) {
        self.guessed = None;
    }

    /// Takes what is there of the answer, and appends to `out` what the client is to get.
    pub(super) fn feed(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<Fed, CodecError> {
        loop {
            if self.passing > 0 {
                let here = self.passing.min(input.len());
                out.extend_from_slice(input.get(..here).unwrap_or_default());
                input.advance(here);
                self.passing -= here;
                if self.passing > 0 {
                    return Ok(Fed::More);
                }
            }
            if std::mem::take(&mut self.eof_due) {
                self.end(self.status, 0, out);
            }
            if self.stage == Stage::Done && !self.continued {
                return Ok(Fed::Done);
            }
            let Some(header) = codec::header(input) else {
                return Ok(Fed::More);
            };
            if self.continued || self.passes(header.length, input) {
                if !self.continued && input.len() < HEADER_BYTES + 1 {
                    return Ok(Fed::More);
                }
                self.pass(header.length, input, out);
                continue;
            }
            if header.length > MAX_CONTROL {
                return Err(CodecError::TooLong {
                    length: header.length,
                });
            }
            if input.len() < HEADER_BYTES + header.length {
                return Ok(Fed::More);
            }
            self.file_number = header.sequence.wrapping_add(1);
            let mut packet = input.split_to(HEADER_BYTES + header.length);
            packet.advance(HEADER_BYTES);
            if self.control(&packet, out)? {
                return Ok(Fed::Infile);
            }
        }
    }

    /// Whether the next packet is handed on as it is. It may still be unknown what it is: then it is
    /// handed on only once its first byte is here.
    fn passes(&self, length: usize, input: &[u8]) -> bool {
        let first = input.get(HEADER_BYTES).copied();
        match self.stage {
            Stage::Columns { .. } | Stage::Parameters { .. } | Stage::PreparedColumns { .. } => {
                first != Some(0xff)
            }
            Stage::Rows { .. } | Stage::Fields => match first {
                Some(0xff) => false,
                Some(0xfe) => length >= MAX_PACKET,
                _ => true,
            },
            Stage::First => self.shape == Shape::Text && first != Some(0xff),
            Stage::Done => false,
        }
    }

    /// Hands a packet on under its new number.
    fn pass(&mut self, length: usize, input: &mut BytesMut, out: &mut Vec<u8>) {
        if !self.continued {
            self.before_passing(out);
        }
        input.advance(HEADER_BYTES);
        self.head(length, out);
        self.passing = length;
        self.continued = length == MAX_PACKET;
        if !self.continued {
            self.after_passing();
        }
    }

    fn before_passing(&mut self, out: &mut Vec<u8>) {
        if let Stage::Rows { eof_owed: true } = self.stage {
            self.stage = Stage::Rows { eof_owed: false };
            self.end(self.status, 0, out);
            self.guessed = Some(out.len().saturating_sub(2));
        }
    }

    /// Moves to the next stage. Only rows are so long that this could come before their last byte, and
    /// they move nowhere.
    fn after_passing(&mut self) {
        let last = matches!(
            self.stage,
            Stage::Parameters { left: 1, .. } | Stage::PreparedColumns { left: 1 }
        );
        self.eof_due = last && !self.takes_no_eof();
        self.stage = match self.stage {
            Stage::Columns { left: 1 } => Stage::Rows {
                eof_owed: !self.takes_no_eof(),
            },
            Stage::Columns { left } => Stage::Columns { left: left - 1 },
            Stage::Parameters { left: 1, columns } => after_parameters(columns),
            Stage::Parameters { left, columns } => Stage::Parameters {
                left: left - 1,
                columns,
            },
            Stage::First | Stage::PreparedColumns { left: 1 } => Stage::Done,
            Stage::PreparedColumns { left } => Stage::PreparedColumns { left: left - 1 },
            stage => stage,
        };
    }

    fn takes_no_eof(&self) -> bool {
        self.client & capabilities::DEPRECATE_EOF != 0
    }

    /// Reads a packet that says where the answer stands; whether it asks for a file.
    fn control(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<bool, CodecError> {
        match packet.first() {
            Some(0xff) => {
                self.error(packet, out)?;
                Ok(false)
            }
            Some(0x00) if self.stage == Stage::First => {
                match self.shape {
                    Shape::Prepared(number) => self.prepared(number, packet, out)?,
                    _ => self.ok(packet, out)?,
                }
                Ok(false)
            }
            Some(0xfe) if self.stage != Stage::First || self.shape == Shape::Single => {
                self.ok(packet, out)?;
                Ok(false)
            }
            Some(0xfb) if self.stage == Stage::First && self.shape == Shape::Results => {
                self.packet(packet, out);
                Ok(true)
            }
            Some(_) if self.stage == Stage::First && self.shape == Shape::Results => {
                let (columns, _) = codec::lenenc::read_int(packet).ok_or(CodecError::Malformed)?;
                self.outcome.parts += 1;
                self.outcome.has_rows = true;
                self.packet(packet, out);
                self.stage = Stage::Columns { left: columns };
                if columns == 0 {
                    return Err(CodecError::Malformed);
                }
                Ok(false)
            }
            _ => Err(CodecError::Malformed),
        }
    }

    fn error(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut error = ErrPacket::parse(packet)?;
        let replicas_word = self.edit.read_only && is_replicas_word(&error);
        if replicas_word {
            error = TRANSACTION_READ_ONLY;
        }
        self.outcome.error = Some((error.code, error.sqlstate, error.message.to_vec()));
        // An older client reads no error where the end of the columns is due.
        self.before_passing(out);
        self.stage = Stage::Done;
        if replicas_word {
            let mut payload = Vec::new();
            error.write(&mut payload, self.client);
            self.packet(&payload, out);
        } else {
            self.packet(packet, out);
        }
        Ok(())
    }

    /// OK, or the end of rows.
    fn ok(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let ok = OkPacket::parse(packet, self.upstream)?;
        self.outcome.status = Some(ok.status);
        self.outcome.warnings = ok.warnings;
        if ok.insert_id != 0 {
            self.outcome.insert_id = ok.insert_id;
        }
        let begin = self.outcome.noted.len();
        for change in changes(ok.state) {
            self.note(&change?);
        }
        self.explain(begin);
        let rows = self.stage != Stage::First;
        if !rows {
            self.outcome.parts += 1;
        }
        let told = self.told(ok.status);
        if let Some(guessed) = self.guessed.take()
            && let Some(place) = out.get_mut(guessed..guessed + 2)
        {
            let flags = told & !status::SESSION_STATE_CHANGED;
            place.copy_from_slice(&flags.to_le_bytes());
        }
        if (rows || ok.header == 0xfe) && !self.takes_no_eof() {
            // A cursor was opened, and nothing but the end of its columns follows.
            let opened = ok.status & status::CURSOR_EXISTS != 0;
            if let Stage::Rows { eof_owed: true } = self.stage
                && !opened
            {
                self.end(told, 0, out);
            }
            self.end(told, ok.warnings, out);
        } else {
            self.write_ok(&ok, told, out)?;
        }
        let more = ok.status & status::MORE_RESULTS_EXISTS != 0;
        self.stage = if more && self.shape == Shape::Results {
            Stage::First
        } else {
            Stage::Done
        };
        Ok(())
    }

    /// Writes an OK as this client is to read it.
    fn write_ok(
        &mut self,
        ok: &OkPacket<'_>,
        told: u16,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let tracks = self.client & capabilities::SESSION_TRACK != 0;
        let mut state = Vec::new();
        if tracks {
            for change in changes(ok.state) {
                let change = change?;
                if self.edit.all_changes || is_told(&change) {
                    codec::write_change(&mut state, &change);
                }
            }
        }
        let told = if state.is_empty() {
            told & !status::SESSION_STATE_CHANGED
        } else {
            told | status::SESSION_STATE_CHANGED
        };
        let edited = OkPacket {
            status: told,
            state: &state,
            ..*ok
        };
        // Written in its place: this ends nearly every answer. It is no longer than what was read, or
        // hardly so, and never two packets.
        let (begin, client) = (out.len(), self.client);
        self.head(0, out);
        edited.write(out, client);
        let length = out.len() - begin - HEADER_BYTES;
        let bytes = u32::try_from(length).unwrap_or_default().to_le_bytes();
        if let Some(place) = out.get_mut(begin..begin + 3) {
            place.copy_from_slice(bytes.get(..3).unwrap_or_default());
        }
        Ok(())
    }

    fn prepared(
        &mut self,
        number: u32,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let found = codec::PrepareOk::parse(packet)?;
        self.outcome.prepared = Some((found.statement, found.columns, found.parameters));
        self.outcome.warnings = found.warnings;
        let mut payload = packet.to_vec();
        if let Some(place) = payload.get_mut(1..5) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.packet(&payload, out);
        self.stage = if found.parameters > 0 {
            Stage::Parameters {
                left: found.parameters,
                columns: found.columns,
            }
        } else {
            after_parameters(found.columns)
        };
        Ok(())
    }

    /// The status flags as they are for the session.
    fn told(&self, status: u16) -> u16 {
        (status & !self.edit.clear) | self.edit.set
    }

    fn note(&mut self, change: &Change<'_>) {
        self.outcome.noted.push(match change {
            Change::Variable { name, value } => Noted::Variable(name.to_vec(), value.to_vec()),
            Change::Schema(schema) => Noted::Schema(schema.to_vec()),
            Change::Gtids(gtids) => Noted::Gtids(gtids.to_vec()),
            Change::Transaction(state) => Noted::Transaction(state.to_vec()),
            Change::Characteristics(sql) => Noted::Characteristics(sql.to_vec()),
            Change::StateChange(true) => Noted::Untracked { alone: true },
            Change::StateChange(false) | Change::Other { .. } => return,
        });
    }

    /// A setting or a schema that one OK tells explains that something has changed.
    fn explain(&mut self, begin: usize) {
        let noted = self.outcome.noted.get_mut(begin..).unwrap_or_default();
        let explains = |noted: &Noted| match noted {
            Noted::Variable(name, _) => name != b"last_gtid",
            Noted::Schema(_) => true,
            _ => false,
        };
        let explained = noted.iter().any(explains);
        for noted in noted {
            if let Noted::Untracked { alone } = noted {
                *alone = !explained;
            }
        }
    }

    /// An end of columns or rows, for clients that know no other.
    fn end(&mut self, status: u16, warnings: u16, out: &mut Vec<u8>) {
        let told = status & !status::SESSION_STATE_CHANGED;
        self.packet(&codec::eof(told, warnings), out);
    }

    fn packet(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        codec::write_packet(out, &mut self.sequence, payload);
    }

    fn head(&mut self, length: usize, out: &mut Vec<u8>) {
        let bytes = u32::try_from(length).unwrap_or_default().to_le_bytes();
        out.extend_from_slice(bytes.get(..3).unwrap_or_default());
        out.push(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// Whether an error is that of a server whose `read_only` is on.
fn is_replicas_word(error: &ErrPacket<'_>) -> bool {
    let said = |words: &[u8]| error.message.windows(words.len()).any(|it| it == words);
    error.code == OPTION_PREVENTS && (said(b"read-only") || said(b"read_only"))
}

fn after_parameters(columns: u16) -> Stage {
    if columns == 0 {
        Stage::Done
    } else {
        Stage::PreparedColumns { left: columns }
    }
}

/// Whether a client that tracks its session hears of a change: the variables are those that servers
/// tell unless they are asked for others.
fn is_told(change: &Change<'_>) -> bool {
    const TOLD: [&[u8]; 5] = [
        b"autocommit",
        b"character_set_client",
        b"character_set_connection",
        b"character_set_results",
        b"time_zone",
    ];
    match change {
        Change::Variable { name, .. } => TOLD.contains(name),
        Change::Schema(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
