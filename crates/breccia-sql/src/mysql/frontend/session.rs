//! A client's session: what it is at, and what it does next.
//!
//! Not one command's way ([`super::serve`]). Invariant: between two commands a session holds a
//! connection only if a transaction is open, if it is pinned, in session mode, or for the moment in
//! which its client may ask about the last answer.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::drain::Phase;
use breccia_net::metrics::SharedCounter;
use breccia_net::stream::close_gently;
use bytes::BytesMut;

use super::amid::FileRest;
use super::attached::Attached;
use super::client::Client;
use super::kill::Registered;
use super::prepared::Statements;
use super::relay::Edit;
use super::{MysqlListener, MysqlUser, SharedListener};
use crate::bells::{Rung, Stands, Timer};
use crate::ends::Limit;
use crate::flow::{SCRATCH, poll_read};
use crate::freshness::Freshness;
use crate::mysql::class::{Mode, Verdict};
use crate::mysql::cluster::View;
use crate::mysql::codec::{
    self, CodecError, ErrPacket, HEADER_BYTES, OkPacket, capabilities, status,
};
use crate::mysql::gtid::Gtids;
use crate::mysql::pool::Pool;
use crate::mysql::settings::Settings;
use crate::mysql::upstream::{Credential, Login};

/// How long a connection that ends may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// A timer that is set for this time or less is not set anew: what is due before is looked at no later.
const SOON: Duration = Duration::from_millis(100);
/// A command longer than this is not read whole: it goes to the primary as it comes.
pub(super) const LONG: usize = 1 << 20;
/// `ER_UNKNOWN_ERROR`: what is Breccia's own and has no number of its own.
pub(super) const ER_UNKNOWN_ERROR: u16 = 1105;

/// Who a client is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The name it gave.
    pub(super) user: String,
    /// The role to use upstream.
    pub(super) upstream: (String, Credential),
    /// That role was named for it: the servers' `user` stands for all others.
    pub(super) named: bool,
}

impl Identity {
    /// Somebody of whom nothing is asked.
    pub(super) fn anybody(name: String) -> Self {
        Self {
            upstream: (name.clone(), Credential::None),
            user: name,
            named: false,
        }
    }

    /// A user of the listener, who has proved the password.
    pub(super) fn proven(name: String, known: MysqlUser) -> Self {
        let named = known.upstream.is_some();
        let own = (name.clone(), Credential::Password(known.password));
        Self {
            user: name,
            upstream: known.upstream.unwrap_or(own),
            named,
        }
    }
}

/// Why a session ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client said goodbye or is gone.
    Gone,
    /// The client is told why: number, SQLSTATE, words.
    Told(u16, &'static [u8; 5], String),
}

impl End {
    /// What a client is told whose packets are not in order: `ER_NET_PACKETS_OUT_OF_ORDER`.
    pub(super) fn out_of_order() -> Self {
        Self::Told(1156, b"08S01", "Got packets out of order".to_owned())
    }
}

impl From<CodecError> for End {
    fn from(error: CodecError) -> Self {
        // ER_NET_PACKETS_OUT_OF_ORDER, ER_MALFORMED_PACKET and their kin are of this class.
        Self::Told(1047, b"08S01", error.to_string())
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A transaction that no server knows yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Begun {
    /// What the client began it with; none: autocommit is off, and it has only read so far.
    pub(super) sql: Option<Vec<u8>>,
    /// READ ONLY was said.
    pub(super) read_only: bool,
}

/// A command of the client, or its beginning.
#[derive(Debug)]
pub(super) struct Command {
    /// Head and payload as they came; of a long one as much as is here, and no head.
    pub(super) bytes: BytesMut,
    /// It is longer than [`LONG`], or continued.
    pub(super) long: bool,
}

impl Command {
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// Which command it is.
    pub(super) fn kind(&self) -> u8 {
        self.payload().first().copied().unwrap_or(u8::MAX)
    }

    /// What follows the command's byte.
    pub(super) fn body(&self) -> &[u8] {
        self.payload().get(1..).unwrap_or_default()
    }
}

/// A client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) listener: Arc<MysqlListener>,
    /// That one as it is now: who may log in holds for whoever changes the user, too.
    pub(super) shared: Arc<SharedListener>,
    pub(super) client: Client,
    pub(super) identity: Identity,
    /// What the client negotiated; SET OPTION changes it.
    pub(super) capabilities: u64,
    /// How it logs in upstream.
    pub(super) login: Login,
    /// The pools it has used under that login: two for each server, the second of read-only connections.
    pub(super) pools: Vec<Option<Arc<Pool>>>,
    /// What connections of it begin with, and what the session is at.
    pub(super) base: Arc<Settings>,
    pub(super) settings: Arc<Settings>,
    pub(super) freshness: Freshness<Gtids>,
    pub(super) pinned: Option<&'static str>,
    /// It has asked for the primary alone.
    pub(super) wants_primary: bool,
    /// The connection to the primary that is kept.
    pub(super) home: Option<Box<Attached>>,
    /// The connection to a replica that is kept.
    pub(super) away: Option<Box<Attached>>,
    /// A transaction that the client has begun and that no server, or only a replica, knows yet.
    pub(super) begun: Option<Begun>,
    /// What the next transaction begins with: SET TRANSACTION, as it was said.
    pub(super) next: Option<Vec<u8>>,
    pub(super) statements: Statements,
    /// What `LAST_INSERT_ID()` is; none if that is not known any more. Zero until something of this session may have set it.
    pub(super) last_insert_id: Option<u64>,
    /// Where it comes from.
    pub(super) peer: String,
    /// The challenge that the client's last proof answered.
    pub(super) nonce: Vec<u8>,
    /// The number of the first packet of an answer that is given here.
    pub(super) next_packet: u8,
    /// What a client still sends of a file that nobody wants any more.
    pub(super) file_rest: Option<FileRest>,
    /// Warnings of the last statement, wherever it ran.
    pub(super) warnings: u16,
    /// It has asked about a statement before when nobody knew any more: for so many statements more, all
    /// of it goes to one connection that it keeps for longer.
    pub(super) asks_late: u8,
    /// When that was last.
    pub(super) asked_late: Instant,
    pub(super) registered: Registered,
    pub(super) rung: Rung,
    pub(super) timer: Timer,
    pub(super) view: Arc<View>,
    pub(super) view_version: u64,
    /// When the command that is served arrived.
    pub(super) asked: Instant,
    /// When the replica that serves its reads was chosen.
    pub(super) settled: Instant,
    /// When the open transaction began.
    pub(super) transaction_since: Option<Instant>,
    /// Where the last statement went and why, and the counter of that.
    pub(super) counted: Option<(bool, &'static str, SharedCounter)>,
    /// Why the last statement was refused here, for the log: SQLSTATE, words, why it had to go where it
    /// could not.
    pub(super) refused: Option<(String, String, &'static str)>,
    /// Where the last statement went or should have gone, by the server's number, and why.
    pub(super) last: Option<(usize, &'static str)>,
    /// A command of its client's is served.
    pub(super) is_asked: bool,
    /// `last` is of the command that is served, and not of one before.
    pub(super) is_placed: bool,
    /// Its server has closed the connection behind an answer, and it ends, too.
    pub(super) is_left: bool,
    /// Its server has closed a connection on which something of it was open.
    pub(super) is_dropped: bool,
    /// The limit that ends it.
    pub(super) over: Option<Limit>,
}

impl Session {
    /// Serves the client until it ends.
    pub(super) async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        self.leave(end).await;
    }

    async fn step(&mut self) -> Result<(), End> {
        let command = self.next_command().await?;
        if self.registered.is_ended() {
            // As one whose server has ended its thread.
            return Err(End::Gone);
        }
        self.asked = clock::now();
        self.next_packet = 1;
        (self.is_asked, self.is_placed) = (true, false);
        // One that says the next thing at once is not waited for.
        self.check_transaction(self.asked)?;
        self.check_primary()?;
        let bytes = self.dispatch(command).await?;
        self.flush().await?;
        self.tell(&bytes);
        self.is_asked = false;
        if self.is_left || self.registered.is_ended() {
            return Err(End::Gone);
        }
        self.client.reuse(bytes);
        Ok(())
    }

    /// Sends what waits for the client.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        let end = || clock::now() + self.listener.limits.write_timeout;
        let client = &mut self.client;
        let sent = client.out.send_by(&mut client.stream, end).await;
        if let Err(error) = &sent
            && error.kind() == io::ErrorKind::TimedOut
            && error.raw_os_error().is_none()
        {
            self.over = Some(Limit::Unread);
        }
        Ok(sent?)
    }

    /// The next command, once it is here whole or known to be long.
    async fn next_command(&mut self) -> Result<Command, End> {
        loop {
            if let Some(header) = codec::header(&self.client.inbound) {
                let length = HEADER_BYTES + header.length;
                self.check_length(header.length)?;
                if header.sequence != 0 {
                    // It would not be told apart from the rest of something else.
                    return Err(End::out_of_order());
                }
                if header.length > LONG {
                    if self.client.inbound.len() > HEADER_BYTES + 1 {
                        return Ok(Command {
                            bytes: self.client.inbound.split(),
                            long: true,
                        });
                    }
                } else if self.client.inbound.len() >= length {
                    return Ok(Command {
                        bytes: self.client.take(length),
                        long: false,
                    });
                }
            }
            self.wait_for_client().await?;
        }
    }

    /// Whether a command of so many bytes, or that begins with them, may be as long.
    pub(super) fn check_length(&mut self, bytes: usize) -> Result<(), End> {
        let most = self.listener.limits.max_request_size;
        if u64::try_from(bytes).is_ok_and(|bytes| bytes <= most) {
            return Ok(());
        }
        self.over = Some(Limit::Request);
        // As servers do, which read no more then.
        let why = format!("breccia: a command of more than {most} bytes (max-request-size)");
        Err(End::Told(1153, b"08S01", why))
    }

    /// Waits until the client has sent something; looks meanwhile after what may not go on for ever.
    async fn wait_for_client(&mut self) -> Result<(), End> {
        self.client.rest();
        let resting = clock::now();
        let mut now = resting;
        loop {
            self.end_lingering(Some(now)).await;
            self.check_end(resting, now)?;
            let due = self.due(resting, now);
            let keeps = self.home.is_some();
            let read = poll_fn(|context| {
                self.rung.note(context, keeps);
                self.registered.note(context);
                if self.registered.is_ended() {
                    return Poll::Ready(None);
                }
                if self.poll_dropped(context) {
                    return Poll::Ready(None);
                }
                if keeps && self.listener.cluster.version() != self.view_version {
                    // What it keeps may be of a primary that is none any more.
                    return Poll::Ready(None);
                }
                let client = &mut self.client;
                let (stream, into) = (&mut client.stream, &mut client.inbound);
                if let Poll::Ready(read) =
                    poll_read(stream, &client.scratch, into, SCRATCH, context)
                {
                    return Poll::Ready(Some(read));
                }
                if self.listener.drain.phase() != Phase::Running && !self.stays_for_drain() {
                    return Poll::Ready(None);
                }
                let Some(due) = due else {
                    return Poll::Pending;
                };
                match self.timer.stands() {
                    Stands::Soon => Poll::Pending,
                    Stands::Over => {
                        self.timer.clear();
                        Poll::Ready(None)
                    }
                    Stands::Unset | Stands::Far => {
                        // One that is set for much later must give way to what is due before.
                        let soon = clock::now() + SOON;
                        self.timer.poll(due, soon, context).map(|()| None)
                    }
                }
            })
            .await;
            match read {
                Some(Ok(0) | Err(_)) => return Err(End::Gone),
                Some(Ok(_)) => return Ok(()),
                None => now = clock::now(),
            }
        }
    }

    /// Whether the client is in a transaction, wherever it is known.
    pub(super) fn in_transaction(&self) -> bool {
        let open = |attached: &Option<Box<Attached>>| {
            attached.as_deref().is_some_and(Attached::in_transaction)
        };
        self.begun.is_some() || open(&self.home) || open(&self.away)
    }

    /// How texts are read now.
    pub(super) fn mode(&self) -> Mode {
        let mode = Mode::of(self.setting("sql_mode").unwrap_or_default());
        let legible = self.setting("character_set_client").is_none_or(is_legible);
        Mode {
            ignore_space: mode.ignore_space || self.capabilities & capabilities::IGNORE_SPACE != 0,
            legible: mode.legible && legible,
            multi_statements: self.capabilities & capabilities::MULTI_STATEMENTS != 0,
            ..mode
        }
    }

    /// What a text is.
    pub(super) fn judge(&self, sql: &[u8]) -> Arc<Verdict> {
        let classifier = &self.listener.cluster.schemas.classifier;
        classifier.classify(sql, self.mode(), self.settings.schema())
    }

    /// Whether autocommit is on for the client.
    pub(super) fn autocommits(&self) -> bool {
        let known = self.settings.autocommits();
        known.or_else(|| self.base.autocommits()).unwrap_or(true)
    }

    /// The flags of an answer that is given here.
    pub(super) fn own_status(&self) -> u16 {
        let mut flags = self.transaction_status();
        if self.begun.as_ref().is_some_and(|begun| begun.read_only) {
            flags |= status::IN_TRANS_READONLY;
        }
        let mode = Mode::of(self.setting("sql_mode").unwrap_or_default());
        if mode.no_backslash_escapes {
            flags |= status::NO_BACKSLASH_ESCAPES;
        }
        // MariaDB, by the name it has for this, tells of it too.
        if mode.ansi_quotes && self.base.get("tx_isolation").is_some() {
            flags |= status::ANSI_QUOTES;
        }
        flags
    }

    /// Those of them that tell of transactions.
    pub(super) fn transaction_status(&self) -> u16 {
        let mut flags = 0;
        if self.autocommits() {
            flags |= status::AUTOCOMMIT;
        }
        if self.tells_transaction() {
            flags |= status::IN_TRANS;
        }
        flags
    }

    /// A setting of the session, as far as it is known.
    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).or_else(|| self.base.get(name))
    }

    /// Whether a client is told of a transaction. Without autocommit, a statement that failed has mostly
    /// begun one.
    fn tells_transaction(&self) -> bool {
        let begins = !self.autocommits();
        let told = |it: &Attached| it.tells_transaction() || (it.unsure && begins);
        self.begun.is_some() || self.home.iter().chain(&self.away).any(|it| told(it))
    }

    /// How answers of a connection are told to the client.
    pub(super) fn edit(&self, replica: bool) -> Edit {
        let mut edit = Edit {
            all_changes: self.pinned == Some("session-track"),
            ..Edit::default()
        };
        if replica && !self.autocommits() {
            edit.clear |= status::AUTOCOMMIT;
        }
        // What no server knows of is told all the same.
        if self.begun.is_some() || (replica && self.tells_transaction()) {
            edit.set |= status::IN_TRANS;
        }
        edit
    }

    /// Answers with OK.
    pub(super) fn answer_ok(&mut self) {
        let ok = OkPacket {
            header: 0,
            affected: 0,
            insert_id: 0,
            status: self.own_status(),
            warnings: 0,
            info: b"",
            state: b"",
        };
        let mut payload = Vec::new();
        ok.write(&mut payload, self.capabilities);
        codec::write_packet(
            &mut self.client.out.bytes,
            &mut { self.next_packet },
            &payload,
        );
    }

    /// Answers with an error.
    pub(super) fn answer_error(&mut self, code: u16, sqlstate: [u8; 5], message: &str) {
        self.listener.counters.failed.increment();
        self.forget_warnings();
        self.write_error(code, sqlstate, message);
    }

    fn write_error(&mut self, code: u16, sqlstate: [u8; 5], message: &str) {
        let error = ErrPacket {
            code,
            sqlstate,
            message: message.as_bytes(),
        };
        let mut payload = Vec::new();
        error.write(&mut payload, self.capabilities);
        codec::write_packet(
            &mut self.client.out.bytes,
            &mut { self.next_packet },
            &payload,
        );
    }

    /// Whether a connection is its one to the primary, and has something that no other has.
    pub(super) fn has_state_on(&self, attached: &Attached) -> bool {
        !attached.replica && self.is_bound()
    }

    /// Whether it is pinned for something that is on its connection.
    pub(super) fn is_bound(&self) -> bool {
        self.pinned.is_some_and(|reason| reason != "target")
    }

    /// Pins the session to its connection, for good.
    pub(super) fn pin(&mut self, reason: &'static str) {
        if matches!(self.pinned, None | Some("target")) || reason == "session-track" {
            self.pinned = Some(reason);
            self.listener.cluster.routed.pinned(reason);
        }
    }

    /// Says goodbye. A connection that is in the middle of something is closed with the session.
    async fn leave(mut self, end: End) {
        self.tell_end(&end);
        self.let_go().await;
        if self.client.out.is_out() {
            let limit = self.listener.limits.write_timeout;
            self.client.stream.sent(limit, &self.listener.drain).await;
        }
        let last = clock::now() + GOODBYE;
        if let End::Told(code, sqlstate, why) = &end {
            if self.is_asked {
                self.listener.counters.failed.increment();
            }
            self.write_error(*code, **sqlstate, why);
        }
        let _ = self.client.send(last).await;
        if self.listener.drain.phase() != Phase::Closing {
            close_gently(&mut self.client.stream, GOODBYE).await;
        }
    }
}

/// Whether no character of a set has a byte in it that looks like a quote or a backslash.
fn is_legible(set: &str) -> bool {
    const NOT: [&str; 6] = ["big5", "cp932", "gb18030", "gbk", "sjis", "swe7"];
    !NOT.contains(&set.to_ascii_lowercase().as_str())
}
