//! Commands too long to be kept: they go on piece by piece, and so does a file that a server asks for.
//!
//! Invariant: however long a command is, no more of it is held than one read brings, and the
//! connection it goes to gets it whole or is closed.

mod execution;

use bytes::{Buf, BytesMut};

use super::amid::FileRest;
use super::prepared::{Held, NUMBER};
use super::relay::Relay;
use super::serve::{Ask, Trouble};
use super::session::{Command, End, Session};
use crate::error::SqlError;
use crate::flow::Outgoing;
use crate::mysql::class::{Asked, Class, Hidden, Verdict, mentioned, scent};
use crate::mysql::codec::{self, HEADER_BYTES, MAX_PACKET, capabilities, command};
use crate::mysql::upstream::Upstream;

/// So much of a long command is looked at.
const LOOKED_AT: usize = 512;

/// The longest text that is prepared: a session keeps it.
const LONGEST_PREPARED: usize = MAX_PACKET - 1;

/// A long command: what is here of it.
#[derive(Debug)]
pub(super) struct Long {
    /// Read and not sent, from the head of its first packet on.
    pub(super) here: BytesMut,
    /// The number a statement has on the connection, which goes in place of the client's.
    number: Option<u32>,
    /// What is put in at a place of the payload, for all that follows to move.
    insert: Option<(usize, Vec<u8>)>,
    /// Bytes of the packet that was begun which are still to come.
    left: usize,
    /// Whether another packet follows that one, or the first one is still to begin.
    goes_on: bool,
}

impl Long {
    fn new(here: BytesMut) -> Self {
        Self {
            here,
            number: None,
            insert: None,
            left: 0,
            goes_on: true,
        }
    }

    /// Whether all of it was taken.
    pub(super) fn is_whole(&self) -> bool {
        self.left == 0 && !self.goes_on
    }

    /// Whether a packet was begun that is not at its end.
    pub(super) fn is_amid(&self) -> bool {
        self.left > 0
    }

    /// Takes the head of a packet, which is there; its number.
    pub(super) fn begin_packet(&mut self) -> u8 {
        let Some(header) = codec::header(&self.here) else {
            return 0;
        };
        self.here.advance(HEADER_BYTES);
        self.left = header.length;
        self.goes_on = header.length == MAX_PACKET;
        header.sequence
    }

    /// Takes what is there of the packet that was begun.
    pub(super) fn piece(&mut self) -> BytesMut {
        let piece = self.here.split_to(self.left.min(self.here.len()));
        self.left -= piece.len();
        piece
    }
}

/// Where a packet's number stands in its head.
const NUMBER_IN_HEAD: usize = 3;

impl Session {
    /// Serves a command of which only the beginning is here.
    pub(super) async fn serve_long(&mut self, here: BytesMut) -> Result<(), End> {
        let mut long = Long::new(here);
        self.here_at_least(&mut long, LOOKED_AT).await?;
        let kind = long.here.get(HEADER_BYTES).copied().unwrap_or(u8::MAX);
        match kind {
            command::STMT_PREPARE => return self.prepare_long(long).await,
            command::QUERY => {
                let several = self.capabilities & capabilities::MULTI_STATEMENTS != 0;
                let verdict = judge_long(&long.here, several);
                if self.note_before(&verdict) {
                    self.serve(Ask::Long(&mut long), &verdict).await?;
                }
            }
            command::STMT_EXECUTE => return self.execute_long(long).await,
            command::STMT_SEND_LONG_DATA => return self.send_ahead_long(long).await,
            _ => return Err(too_long()),
        }
        self.finish_refused(long).await
    }

    /// Reads until so much of the first packet is here, which is longer than that.
    async fn here_at_least(&mut self, long: &mut Long, bytes: usize) -> Result<(), End> {
        while long.here.len() < HEADER_BYTES + bytes {
            self.more(&mut long.here).await?;
        }
        Ok(())
    }

    /// A text is prepared that is long: it is kept, as every text of a prepared statement.
    async fn prepare_long(&mut self, mut long: Long) -> Result<(), End> {
        let length = codec::header(&long.here).map_or(0, |header| header.length);
        if length > LONGEST_PREPARED {
            let why = format!(
                "breccia: a prepared statement's text may have {LONGEST_PREPARED} bytes; \
                 send it as a plain query, or its values as parameters"
            );
            self.answer_error(1153, *b"08S01", &why);
            return self.finish_refused(long).await;
        }
        self.here_at_least(&mut long, length).await?;
        let packet = long.here.split_to(HEADER_BYTES + length);
        let ahead = std::mem::replace(&mut self.client.inbound, long.here);
        self.client.inbound.unsplit(ahead);
        let sql = packet.get(HEADER_BYTES + 1..).unwrap_or_default();
        self.prepare_statement(sql).await
    }

    /// Drops what is left of a command that was refused before it was sent.
    async fn finish_refused(&mut self, mut long: Long) -> Result<(), End> {
        if long.is_whole() {
            return Ok(());
        }
        // What was refused is on its way still: it is read, so that the answer is too.
        self.drop_rest(&mut long).await?;
        self.client.inbound = long.here;
        // The answer waits alone, and is to have the number behind the command's last packet.
        if let Some(number) = self.client.out.bytes.get_mut(NUMBER_IN_HEAD) {
            *number = self.next_packet;
        }
        Ok(())
    }

    /// Sends a long command to a server; the number of the first packet of its answer.
    pub(super) async fn send_long(
        &mut self,
        upstream: &mut Upstream,
        long: &mut Long,
        server: usize,
    ) -> Result<u8, Trouble> {
        let mut out = Outgoing::default();
        let mut pieces = Pieces::new(long);
        let mut bytes: usize = 0;
        while !long.is_whole() {
            while long.here.len() < HEADER_BYTES {
                self.more_amid(&mut long.here, upstream, server, false)
                    .await?;
            }
            let number = long.begin_packet();
            self.next_packet = number.wrapping_add(1);
            bytes = bytes.saturating_add(long.left);
            if let Err(end) = self.check_length(bytes) {
                self.drain(long).await;
                return Err(end.into());
            }
            pieces.packet(long.left, &mut out.bytes);
            while long.is_amid() {
                if long.here.is_empty() {
                    self.more_amid(&mut long.here, upstream, server, false)
                        .await?;
                }
                pieces.payload(&long.piece(), &mut out.bytes);
                self.send_amid(upstream, &mut out, server).await?;
            }
        }
        pieces.end(&mut out.bytes);
        self.send_amid(upstream, &mut out, server).await?;
        // What came behind it is the client's next command.
        let rest = long.here.split();
        let ahead = std::mem::replace(&mut self.client.inbound, rest);
        self.client.inbound.unsplit(ahead);
        Ok(self.next_packet)
    }

    /// Sends a file of the client to the server that has asked for it; what number the client gave the last
    /// packet of it.
    pub(super) async fn send_file(
        &mut self,
        upstream: &mut Upstream,
        server: usize,
        relay: &Relay,
    ) -> Result<u8, Trouble> {
        let mut rest = FileRest {
            here: self.client.inbound.split(),
            left: 0,
        };
        let sent = self.file_packets(upstream, server, relay, &mut rest).await;
        match sent {
            Ok(last) => {
                self.client.inbound = rest.here;
                Ok(last)
            }
            Err(trouble) => {
                // It must not be taken for commands, and the connection is not to wait for it.
                self.file_rest = Some(rest);
                Err(trouble)
            }
        }
    }

    async fn file_packets(
        &mut self,
        upstream: &mut Upstream,
        server: usize,
        relay: &Relay,
        rest: &mut FileRest,
    ) -> Result<u8, Trouble> {
        let mut out = Outgoing::default();
        let (mut number, mut expected) = (relay.file_number(), relay.client_number());
        loop {
            while rest.here.len() < HEADER_BYTES {
                self.more_amid(&mut rest.here, upstream, server, true)
                    .await?;
            }
            let Some(header) = codec::header(&rest.here) else {
                return Err(End::Gone.into());
            };
            self.next_packet = header.sequence.wrapping_add(1);
            if header.sequence != expected {
                return Err(End::out_of_order().into());
            }
            if let Some(place) = rest.here.get_mut(NUMBER_IN_HEAD) {
                *place = number;
            }
            (number, expected) = (number.wrapping_add(1), expected.wrapping_add(1));
            rest.left = HEADER_BYTES + header.length;
            while rest.left > 0 {
                if rest.here.is_empty() {
                    self.more_amid(&mut rest.here, upstream, server, true)
                        .await?;
                }
                let piece = rest.here.split_to(rest.left.min(rest.here.len()));
                rest.left -= piece.len();
                out.bytes.extend_from_slice(&piece);
                self.send_amid(upstream, &mut out, server).await?;
            }
            if header.length == 0 {
                return Ok(header.sequence);
            }
        }
    }

    /// `COM_STMT_SEND_LONG_DATA`: it has no answer; what went wrong is told when the statement runs.
    pub(super) async fn send_ahead(&mut self, command: &Command) -> Result<(), End> {
        let Some(number) = number_of(&command.bytes) else {
            return Ok(());
        };
        let Some((held, there)) = self.ready_to_send_ahead(number).await? else {
            return Ok(());
        };
        let mut bytes = command.bytes.to_vec();
        let at = HEADER_BYTES + NUMBER.start..HEADER_BYTES + NUMBER.end;
        if let Some(place) = bytes.get_mut(at) {
            place.copy_from_slice(&there.to_le_bytes());
        }
        if self.kept(held).is_some()
            && let Some(mut kept) = self.slot(held.replica).take()
        {
            let server = kept.server;
            if let Some(upstream) = kept.lease.upstream() {
                let mut out = Outgoing::default();
                out.bytes.extend_from_slice(&bytes);
                kept.tainted |= self
                    .send_upstream(upstream, &mut out, server)
                    .await
                    .is_err();
            }
            *self.slot(held.replica) = Some(kept);
        }
        Ok(())
    }

    async fn ready_to_send_ahead(&mut self, number: u32) -> Result<Option<(Held, u32)>, End> {
        match self.ready_for_data(number).await {
            Ok(ready) => Ok(Some(ready)),
            Err(Trouble::End(end)) => Err(end),
            Err(Trouble::Before(error)) => {
                self.cannot_take(number, error);
                Ok(None)
            }
            Err(Trouble::After { error, .. }) => Err(cannot_send_ahead(&error)),
        }
    }

    async fn send_ahead_long(&mut self, mut long: Long) -> Result<(), End> {
        let number = number_of(&long.here).unwrap_or_default();
        let Some((held, there)) = self.ready_to_send_ahead(number).await? else {
            return self.finish_refused(long).await;
        };
        long.number = Some(there);
        let Some(mut kept) = self.slot(held.replica).take() else {
            return Err(End::Gone);
        };
        let server = kept.server;
        if let Some(upstream) = kept.lease.upstream() {
            match self.send_long(upstream, &mut long, server).await {
                Ok(_) => {}
                Err(Trouble::End(end)) => return Err(end),
                Err(Trouble::Before(error) | Trouble::After { error, .. }) => {
                    return Err(cannot_send_ahead(&error));
                }
            }
        }
        *self.slot(held.replica) = Some(kept);
        Ok(())
    }
}

/// What is known of a text that is too long to be read.
fn judge_long(here: &[u8], several: bool) -> Verdict {
    let begin = here.get(HEADER_BYTES + 1..).unwrap_or_default();
    let begin = begin.get(..LOOKED_AT).unwrap_or(begin);
    let first = begin
        .trim_ascii_start()
        .split(|byte| !byte.is_ascii_alphabetic())
        .next();
    let writes = first.is_some_and(|word| {
        [&b"INSERT"[..], b"REPLACE", b"UPDATE", b"DELETE"]
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known))
    });
    let reads = first.is_some_and(|word| word.eq_ignore_ascii_case(b"SELECT"));
    let class = match scent(begin).filter(|_| !writes) {
        Some(reason) => Class::Pin(reason),
        None => Class::Primary("long"),
    };
    Verdict {
        class,
        asked: Asked {
            warnings: false,
            ..mentioned(begin)
        },
        may_set_last_insert_id: true,
        // As far as a READ ONLY transaction goes, which lets neither write.
        only_reads: (reads || writes) && !several,
        ddl: !writes,
        hidden: if writes {
            Hidden::Triggers
        } else {
            Hidden::Routines
        },
        ..Verdict::of_primary("long")
    }
}

/// Data could not be sent ahead. There is no answer to say so in, and the statement must not run
/// without it.
fn cannot_send_ahead(error: &SqlError) -> End {
    let why = format!("breccia: a parameter's data could not be sent: {error}");
    End::Told(1158, b"08S01", why)
}

fn number_of(bytes: &[u8]) -> Option<u32> {
    let at = HEADER_BYTES + NUMBER.start..HEADER_BYTES + NUMBER.end;
    Some(u32::from_le_bytes(bytes.get(at)?.try_into().ok()?))
}

fn too_long() -> End {
    let why = "Got a packet bigger than 'max_allowed_packet' bytes".to_owned();
    End::Told(1153, b"08S01", why)
}

/// Packets that are written anew because something was put into the first.
#[derive(Debug)]
struct Pieces {
    sequence: u8,
    number: Option<u32>,
    insert: Option<(usize, Vec<u8>)>,
    /// Bytes of payload seen so far.
    seen: usize,
    /// What was put in has moved all that follows: so much of the end of a packet is in the next.
    carry: Vec<u8>,
    /// How many more bytes of what comes belong to the packet that was begun.
    room: usize,
    /// How many bytes what was put in is long.
    moved: usize,
    /// The length of the packet that was begun last.
    last: usize,
}

impl Pieces {
    fn new(long: &mut Long) -> Self {
        let insert = long.insert.take();
        Self {
            sequence: 0,
            number: long.number,
            moved: insert.as_ref().map_or(0, |(_, bytes)| bytes.len()),
            insert,
            seen: 0,
            carry: Vec::new(),
            room: 0,
            last: 0,
        }
    }

    fn head(&mut self, length: usize, out: &mut Vec<u8>) {
        let bytes = u32::try_from(length).unwrap_or_default().to_le_bytes();
        out.extend_from_slice(bytes.get(..3).unwrap_or_default());
        out.push(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        (self.room, self.last) = (length, length);
    }

    /// A packet of so many bytes comes.
    fn packet(&mut self, length: usize, out: &mut Vec<u8>) {
        let grown = length + self.moved;
        self.head(grown.min(MAX_PACKET), out);
        let carry = std::mem::take(&mut self.carry);
        self.put(&carry, out);
    }

    fn payload(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut bytes = piece.to_vec();
        if let Some(number) = self.number {
            for (at, byte) in NUMBER.zip(number.to_le_bytes()) {
                if let Some(place) = at.checked_sub(self.seen).and_then(|it| bytes.get_mut(it)) {
                    *place = byte;
                }
            }
        }
        let begin = self.seen;
        self.seen += piece.len();
        if let Some((flag, types)) = &self.insert
            && (begin..self.seen).contains(flag)
        {
            let at = flag - begin;
            if let Some(place) = bytes.get_mut(at) {
                *place = 1;
            }
            let types = types.clone();
            bytes.splice(at + 1..=at, types);
            self.insert = None;
        }
        self.put(&bytes, out);
    }

    /// Writes what fits into the packet that was begun; the rest waits for the next.
    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let fits = self.room.min(bytes.len());
        let (now, later) = bytes.split_at(fits);
        out.extend_from_slice(now);
        self.room -= fits;
        self.carry.extend_from_slice(later);
    }

    /// No more packets come. A full one is not the last.
    fn end(&mut self, out: &mut Vec<u8>) {
        let carry = std::mem::take(&mut self.carry);
        if !carry.is_empty() || self.last == MAX_PACKET {
            self.head(carry.len(), out);
            self.put(&carry, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a payload as a client would, and reads what a server would see of what is sent on.
    fn through(payload: &[u8], number: u32, insert: Option<(usize, Vec<u8>)>) -> Vec<u8> {
        let mut packets = Vec::new();
        codec::write_packet(&mut packets, &mut 0, payload);
        let mut long = Long {
            number: Some(number),
            insert,
            ..Long::new(BytesMut::new())
        };
        let mut pieces = Pieces::new(&mut long);
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(header) = packets.get(at..).and_then(codec::header) {
            at += HEADER_BYTES;
            pieces.packet(header.length, &mut out);
            let body = packets.get(at..at + header.length).expect("whole");
            for piece in body.chunks(1 << 20) {
                pieces.payload(piece, &mut out);
            }
            at += header.length;
        }
        pieces.end(&mut out);
        let (mut found, mut at, mut sequence) = (Vec::new(), 0, 0_u8);
        loop {
            let header = out.get(at..).and_then(codec::header).expect("a head");
            assert_eq!(header.sequence, sequence);
            sequence = sequence.wrapping_add(1);
            at += HEADER_BYTES;
            found.extend_from_slice(out.get(at..at + header.length).expect("whole"));
            at += header.length;
            if header.length < MAX_PACKET {
                assert_eq!(at, out.len());
                return found;
            }
        }
    }

    #[test]
    fn what_is_put_in_moves_all_that_follows() {
        for length in [
            64,
            MAX_PACKET - 3,
            MAX_PACKET - 2,
            MAX_PACKET,
            MAX_PACKET + 9,
            2 * MAX_PACKET - 2,
        ] {
            let payload: Vec<u8> = (0..length)
                .map(|at| u8::try_from(at % 251).expect("small"))
                .collect();
            let mut expected = payload.clone();
            expected.splice(1..5, 7_u32.to_le_bytes());
            assert_eq!(through(&payload, 7, None), expected, "{length}");
            if let Some(flag) = expected.get_mut(11) {
                *flag = 1;
            }
            expected.splice(12..12, [3, 0]);
            let found = through(&payload, 7, Some((11, vec![3, 0])));
            assert_eq!(found, expected, "{length}");
        }
    }
}
