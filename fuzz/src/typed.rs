//! Requests carried out over a memory store: the portable set of Redis, and memcached's commands.
//!
//! Invariant checked: every request gets exactly one whole reply of its kind, or none where it asked
//! for none; a memory store never makes its caller wait.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use breccia_kv::memcached::codec::{Command, Decoded, Decoder, ReplyScanner, Request};
use breccia_kv::memcached::codec::{ScannedReply, is_error};
use breccia_kv::memcached::rewrite::{Quiet, shape};
use breccia_kv::memcached::{local, typed};
use breccia_kv::memory::{MemoryOptions, MemoryStore};
use breccia_kv::resp::codec::reply::{ReplyScanner as RespScanner, elements};
use breccia_kv::resp::encode::RespVersion;
use breccia_kv::resp::portable;
use breccia_kv::upstream::Scan;

fn store(first: u8) -> MemoryStore {
    let mut options = MemoryOptions::new("mem");
    options.max_memory = (first & 2 != 0).then_some(4096);
    MemoryStore::new(options)
}

fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a memory store makes its caller wait"),
    }
}

/// Commands on a line each, their arguments parted by spaces; the first byte picks the version of
/// the protocol and whether memory is scarce.
pub fn resp_portable(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let store = store(*first);
    let version = if first & 1 == 0 {
        RespVersion::V2
    } else {
        RespVersion::V3
    };
    let mut queued: Option<Vec<Vec<Vec<u8>>>> = None;
    for line in data.split(|byte| *byte == b'\n') {
        let arguments: Vec<Vec<u8>> = line
            .split(|byte| *byte == b' ')
            .map(<[u8]>::to_vec)
            .collect();
        if asks_for_much(&arguments) {
            continue;
        }
        let mut out = Vec::new();
        match (line, &mut queued) {
            (b"MULTI", None) => {
                queued = Some(Vec::new());
                continue;
            }
            (b"EXEC", Some(commands)) => {
                now_or_never(portable::execute_transaction(
                    &store, commands, version, &mut out,
                ));
                queued = None;
            }
            (_, Some(commands)) => {
                if portable::check_queued(&store, commands, &arguments, &mut out) {
                    assert!(out.is_empty());
                    commands.push(arguments);
                    continue;
                }
            }
            _ => now_or_never(portable::execute(&store, &arguments, version, &mut out)),
        }
        check_resp(&out, version, &out, 0);
    }
}

/// SETRANGE makes strings as long as Redis does, which tells nothing and takes long.
fn asks_for_much(arguments: &[Vec<u8>]) -> bool {
    arguments
        .iter()
        .any(|one| one.eq_ignore_ascii_case(b"setrange"))
        && arguments.iter().any(|one| one.len() > 5)
}

fn check_resp(reply: &[u8], version: RespVersion, whole: &[u8], level: usize) {
    let scan = RespScanner::default().scan(reply);
    assert_eq!(
        scan,
        Scan::Complete(reply.len()),
        "{}",
        whole.escape_ascii()
    );
    let kinds: &[u8] = match version {
        RespVersion::V2 => b"+-:$*",
        RespVersion::V3 => b"+-:$*_,#!=%~(",
    };
    assert!(
        kinds.contains(&reply[0]),
        "{version:?}: {}",
        whole.escape_ascii()
    );
    if level < 8 {
        for element in elements(reply).into_iter().flatten() {
            check_resp(element, version, whole, level + 1);
        }
    }
}

/// A memcached client's bytes; the first byte picks whether memory is scarce.
pub fn memcached_typed(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let store = store(*first);
    let mut decoder = Decoder::new(1 << 20);
    while !rest.is_empty() {
        let length = match decoder.decode(rest) {
            Decoded::Incomplete | Decoded::Head(_) => return,
            Decoded::Wrong(wrong) if wrong.close => return,
            Decoded::Wrong(wrong) => wrong.length,
            Decoded::Request(request) => {
                answer(&store, &request);
                request.frame_length
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn answer(store: &MemoryStore, request: &Request<'_>) {
    let mut out = Vec::new();
    let Some(shape) = shape(&request.command) else {
        let answered = local::answer(&request.command, Vec::new, &mut out);
        assert_eq!(answered, request.command != Command::Quit);
        assert_eq!(out.ends_with(b"\r\n"), answered);
        return;
    };
    now_or_never(typed::execute(store, request, &mut out));
    if out.is_empty() {
        assert_ne!(Quiet::of(request), Quiet::No, "{request:?} gets no reply");
        return;
    }
    assert!(!request.noreply, "{request:?} gets {}", out.escape_ascii());
    let one_line = out.iter().position(|byte| *byte == b'\n') == Some(out.len() - 1);
    // Refusals of our own are no replies of a server.
    if is_error(&out) && one_line && out.ends_with(b"\r\n") {
        return;
    }
    if Quiet::of(request) == Quiet::Kept {
        // Servers are asked for a sign that it is done; a typed store needs none.
        out.extend_from_slice(b"MN\r\n");
    }
    let scan = ReplyScanner::default().scan(shape, &out);
    assert_eq!(
        scan,
        ScannedReply::Complete(out.len()),
        "{request:?} gets {}",
        out.escape_ascii()
    );
    // memcached shows that `ma q N…` made a counter; forwarding cannot tell and hides it.
    let may_show = matches!(&request.command, Command::Meta(meta) if meta.flags.vivify.is_some());
    let hides = !out.is_empty() && Quiet::of(request).shown(&out).is_empty();
    assert!(
        may_show || !hides,
        "{request:?} gets {}",
        out.escape_ascii()
    );
}
