//! The reply side of memcached for [`crate::upstream::Upstream`]: joins the codec to a connection.
//!
//! Invariant: memcached sends nothing that answers no request, so bytes nobody asked for are wrong.

use crate::pipeline::Canary;
use crate::upstream::{Scan, Wire};

use super::codec::{ReplyScanner, ScannedReply, Shape};

/// memcached's text and meta replies.
#[derive(Clone, Copy, Debug)]
pub struct MemcachedWire;

impl Wire for MemcachedWire {
    type Shape = Shape;
    type Scanner = ReplyScanner;
    type Memory = ();

    fn scan(scanner: &mut ReplyScanner, shape: Option<Shape>, bytes: &[u8]) -> Scan {
        let Some(shape) = shape else {
            return Scan::Wrong("bytes that answer no request");
        };
        match scanner.scan(shape, bytes) {
            ScannedReply::Complete(length) => Scan::Complete(length),
            ScannedReply::Incomplete => Scan::Incomplete,
            ScannedReply::Wrong(why) => Scan::Wrong(why),
        }
    }

    fn canary() -> Canary<Shape> {
        Canary {
            bytes: b"mn\r\n",
            shape: Shape::MetaNoop,
        }
    }
}
