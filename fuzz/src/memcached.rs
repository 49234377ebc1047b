//! The memcached codec, both sides.
//!
//! Invariant checked: cuts do not matter, and no frame is longer than what the decoder was given.

use breccia_kv::memcached::codec::{
    Decoded, Decoder, MetaReply, ReplyScanner, ScannedReply, Shape, Values,
};

use crate::pieces::same_in_pieces;

/// Requests from a client.
pub fn memcached_request(data: &[u8]) {
    let limit = if data.first() == Some(&b'!') {
        100
    } else {
        1 << 20
    };
    let read = |decoder: &mut Decoder, bytes: &[u8]| match decoder.decode(bytes) {
        Decoded::Incomplete | Decoded::Head(_) => None,
        Decoded::Request(request) => {
            let length = request.frame_length;
            assert!(length > 0 && length <= bytes.len());
            Some((format!("{request:?}"), length))
        }
        // Nothing that follows a fatal answer is a request; else the bytes named are dropped, also
        // those that are still to come.
        Decoded::Wrong(wrong) => {
            assert!(wrong.length > 0);
            let length = if wrong.close { 0 } else { wrong.length };
            Some((format!("{wrong:?}"), length))
        }
    };
    same_in_pieces(data, || Decoder::new(limit), read);
}

const SHAPES: [Shape; 14] = [
    Shape::Values,
    Shape::Storage,
    Shape::Delete,
    Shape::Touch,
    Shape::Arithmetic,
    Shape::Ok,
    Shape::Version,
    Shape::Stats,
    Shape::MetaGet,
    Shape::MetaSet,
    Shape::MetaDelete,
    Shape::MetaArithmetic,
    Shape::MetaDebug,
    Shape::MetaNoop,
];

/// Replies from a server; the first byte picks what was asked.
pub fn memcached_reply(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let Some(shape) = SHAPES.get(usize::from(*first) % SHAPES.len()).copied() else {
        return;
    };
    let read = |scanner: &mut ReplyScanner, bytes: &[u8]| match scanner.scan(shape, bytes) {
        ScannedReply::Incomplete => None,
        ScannedReply::Wrong(why) => Some((why.to_owned(), 0)),
        ScannedReply::Complete(length) => {
            assert!(length > 0 && length <= bytes.len());
            let reply = bytes.get(..length).unwrap_or_default();
            if shape == Shape::Values {
                let _blocks = Values::new(reply).count();
            }
            if let Some(meta) = MetaReply::new(reply) {
                let _flag = meta.flag(b'c');
            }
            *scanner = ReplyScanner::default();
            Some((format!("{length}"), length))
        }
    };
    same_in_pieces(data, ReplyScanner::default, read);
}
