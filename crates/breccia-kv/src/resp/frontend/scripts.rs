//! EVAL and EVALSHA over shards: a script that one shard ran is known on all, as on one Redis.
//!
//! An EVALSHA whose text is kept (see [`crate::resp::scripts`]) is sent as EVAL until the server
//! behind its connection has shown that it knows the script. Nothing is asked twice and nothing is
//! sent again: the order of a client's requests is not touched. Invariant: what is noted of a
//! connection is forgotten with it, so a server that was started again is told the text.

use std::rc::Rc;
use std::sync::Arc;

use super::super::codec::reply::{elements, integer, text};
use super::super::codec::request::{Request, RequestLimits, RequestParser};
use super::super::encode;
use super::super::scripts::{ScriptId, Scripts};
use super::dialogue::{RespDialogue, Step};
use super::forward::{Answered, LARGE_REQUEST};
use super::leaf::RespUpstream;
use super::route::Command;
use super::ticket::{Convert, Ticket};
use crate::edit::parse_integer;
use crate::pipeline::Patience;
use crate::topology::LeafIndex;

/// A script on its way: what its reply says of the server.
pub(crate) struct Sent {
    upstream: Rc<RespUpstream>,
    scripts: Arc<Scripts>,
    id: ScriptId,
    epoch: u64,
    /// Whether it was sent as EVAL.
    whole: bool,
}

impl Sent {
    /// The request goes out on another connection: what it is sent as there, if not as before.
    pub(crate) fn move_to(&mut self, upstream: &Rc<RespUpstream>, frame: &[u8]) -> Option<Vec<u8>> {
        self.upstream = Rc::clone(upstream);
        if self.whole || upstream.memory().borrow().scripts.has(self.epoch, self.id) {
            return None;
        }
        let body = self.scripts.body(self.id)?;
        let limits = RequestLimits {
            max_request_size: usize::MAX,
            max_arguments: usize::MAX,
        };
        let mut parser = RequestParser::default();
        let length = parser.parse(frame, &limits).ok()??;
        self.whole = true;
        Some(with_body(parser.request(frame, length), &body))
    }

    /// Notes what the reply says.
    pub(crate) fn heard(&self, reply: &[u8]) {
        let seen = &mut self.upstream.memory().borrow_mut().scripts;
        if reply.starts_with(b"-NOSCRIPT ") {
            seen.remove(self.id);
        } else if self.whole && reply.starts_with(b"-ERR Error compiling script") {
            self.scripts.forget(self.id);
        } else if self.whole && reply.first() != Some(&b'-') {
            seen.add(self.epoch, self.id);
        }
    }
}

/// Whether a command is given a script's name, not its text.
fn is_by_name(command: &Command) -> bool {
    command.spec.name.starts_with("evalsha")
}

/// Whether the number of keys is one that the server takes; else it does not look at the script.
fn counts_its_keys(request: Request<'_>) -> bool {
    parse_integer(request.argument(2))
        .and_then(|count| usize::try_from(count).ok())
        .is_some_and(|count| count <= request.len().saturating_sub(3))
}

/// EVALSHA as EVAL; those that only read stay so.
fn with_body(request: Request<'_>, body: &[u8]) -> Vec<u8> {
    let reads = request.argument(0).eq_ignore_ascii_case(b"evalsha_ro");
    let name: &[u8] = if reads { b"EVAL_RO" } else { b"EVAL" };
    let mut frame = Vec::with_capacity(request.frame().len() + body.len() + 16);
    encode::array(&mut frame, request.len());
    encode::bulk(&mut frame, name);
    encode::bulk(&mut frame, body);
    for index in 2..request.len() {
        frame.extend_from_slice(request.encoded(index));
    }
    frame
}

impl RespDialogue {
    fn scripts(&self) -> Arc<Scripts> {
        Arc::clone(&self.forward().store.scripts)
    }

    pub(crate) fn forward_script(&mut self, command: &Command, request: Request<'_>) -> Step {
        let leaf = match self.single_home(command, request) {
            Err(Answered) => return Step::Done,
            Ok(Some(leaf)) => {
                self.note_write(leaf);
                leaf
            }
            Ok(None) => self.any_leaf(),
        };
        let id = if is_by_name(command) {
            ScriptId::parse(request.argument(1))
        } else {
            Some(ScriptId::of(request.argument(1)))
        };
        // What is no name at all the server refuses.
        let Some(id) = id else {
            return self.send(leaf, command.row, request);
        };
        let held = self.held(leaf);
        if held.is_none() && request.frame().len() > LARGE_REQUEST && !self.on_bulk {
            let whole = self.script_frame(command, request);
            let frame = whole.as_deref().unwrap_or(request.frame());
            return self.send_large(leaf, command.row, frame);
        }
        let upstream = held.unwrap_or_else(|| self.path(leaf));
        self.send_script(&upstream, leaf, command, (request, id));
        Step::Done
    }

    fn send_script(
        &mut self,
        upstream: &Rc<RespUpstream>,
        leaf: LeafIndex,
        command: &Command,
        (request, id): (Request<'_>, ScriptId),
    ) {
        let scripts = self.scripts();
        let epoch = scripts.epoch();
        let seen = upstream.memory().borrow().scripts.has(epoch, id);
        let whole = (!seen)
            .then(|| self.script_frame(command, request))
            .flatten();
        let sent = Sent {
            upstream: Rc::clone(upstream),
            scripts,
            id,
            epoch,
            whole: whole.is_some() || !is_by_name(command),
        };
        let ticket = Ticket::Script(self.ask(leaf, command.row), Box::new(sent));
        self.enqueue_ticket(upstream, ticket, Patience::Timeout, |out| {
            out.extend_from_slice(whole.as_deref().unwrap_or(request.frame()));
        });
    }

    /// Keeps the text of an EVAL; an EVALSHA as EVAL, if its text is kept.
    fn script_frame(&self, command: &Command, request: Request<'_>) -> Option<Vec<u8>> {
        let scripts = self.scripts();
        if !is_by_name(command) {
            let body = request.argument(1);
            if counts_its_keys(request) {
                scripts.learn(ScriptId::of(body), body);
            }
            return None;
        }
        let body = scripts.body(ScriptId::parse(request.argument(1))?)?;
        Some(with_body(request, &body))
    }

    /// What a script within MULTI is sent as, if not as it came. Its reply will only be QUEUED, so
    /// what the client's shared connection has shown must do.
    pub(crate) fn queued_script_frame(
        &self,
        leaf: Option<LeafIndex>,
        command: &Command,
        request: Request<'_>,
    ) -> Option<Vec<u8>> {
        let shared = leaf.and_then(|leaf| self.paths.get(leaf.get())?.as_ref());
        let known = shared.zip(ScriptId::parse(request.argument(1)));
        let epoch = self.scripts().epoch();
        if is_by_name(command)
            && known.is_some_and(|(shared, id)| shared.memory().borrow().scripts.has(epoch, id))
        {
            return None;
        }
        self.script_frame(command, request)
    }

    /// What the merged reply of SCRIPT LOAD, EXISTS and FLUSH means here.
    pub(crate) fn script_reply(&self, request: Request<'_>) -> Option<Box<dyn Convert>> {
        let scripts = self.scripts();
        let subcommand = request.argument(1).to_ascii_lowercase();
        match subcommand.as_slice() {
            b"load" => Some(Box::new(Loaded {
                scripts,
                body: request.argument(2).into(),
            })),
            b"exists" => {
                let names = request.arguments().skip(2);
                Some(Box::new(Exists {
                    ids: names.map(ScriptId::parse).collect(),
                    scripts,
                }))
            }
            b"flush" => {
                let mut options = request.arguments().skip(2);
                let known = |option: &[u8]| {
                    option.eq_ignore_ascii_case(b"async") || option.eq_ignore_ascii_case(b"sync")
                };
                if request.len() <= 3 && options.all(known) {
                    scripts.clear();
                }
                None
            }
            _ => None,
        }
    }
}

/// SCRIPT LOAD: once all shards have the script, it is kept.
struct Loaded {
    scripts: Arc<Scripts>,
    body: Box<[u8]>,
}

impl Convert for Loaded {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        let id = ScriptId::of(&self.body);
        if text(reply).and_then(ScriptId::parse) == Some(id) {
            self.scripts.learn(id, &self.body);
        }
        reply.to_vec()
    }
}

/// SCRIPT EXISTS: what is kept exists, whichever shard ran it.
struct Exists {
    scripts: Arc<Scripts>,
    ids: Vec<Option<ScriptId>>,
}

impl Exists {
    fn rewrite(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(reply.len());
        encode::array(&mut out, self.ids.len());
        let mut replies = elements(reply)?;
        for id in &self.ids {
            let on_all = integer(replies.next()?)?;
            let kept = id.is_some_and(|id| self.scripts.body(id).is_some());
            encode::integer(&mut out, if kept { 1 } else { on_all });
        }
        Some(out)
    }
}

impl Convert for Exists {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        self.rewrite(reply).unwrap_or_else(|| reply.to_vec())
    }
}
