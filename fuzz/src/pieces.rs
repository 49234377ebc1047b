//! Input cut into pieces, as a socket would deliver it, and what must hold however it is cut.
//!
//! It knows no protocol. Invariant: the pieces together are the input, and the cuts depend on the
//! input alone.

use std::fmt::Debug;

/// What a codec says of the bytes it was given.
#[derive(Debug)]
pub(crate) enum Step<T> {
    /// More bytes are needed.
    More,
    /// A whole item, and its length: no byte of it may be missing, and none after it matters.
    Frame(T, usize),
    /// An item after which so many bytes are dropped, also those that are still to come.
    Drop(T, usize),
    /// Nothing that follows has a meaning.
    Last(T),
}

/// Inputs up to this length are also read byte by byte, so that every prefix was seen.
const MOST_SINGLE_BYTES: usize = 700;

/// Reads `data` item after item: given whole, in pieces of two kinds and byte by byte. The items must
/// be the same each time, and each frame must be found as soon as its last byte is there.
///
/// `read` looks at the bytes from the current item on; after `More` it is called again with the same
/// bytes and more behind them. It is told when it reads a frame once more, alone: the time to look at
/// the item closely.
pub(crate) fn same_however_cut<S, T: PartialEq + Debug>(
    data: &[u8],
    state: impl Fn() -> S,
    read: impl Fn(&mut S, &[u8], bool) -> Step<T>,
) -> Vec<T> {
    let whole = run(data, &[data.len()], &state, &read, true);
    let check = |ends: &[usize]| {
        let pieces = run(data, ends, &state, &read, false);
        assert_eq!(
            whole, pieces,
            "the answer depends on how the bytes were cut"
        );
    };
    check(&ends(data, 4, 300));
    check(&ends(data, 40, 2000));
    if data.len() <= MOST_SINGLE_BYTES {
        let every: Vec<usize> = (1..=data.len()).collect();
        check(&every);
    }
    whole
}

fn run<S, T: PartialEq + Debug>(
    data: &[u8],
    ends: &[usize],
    state: &impl Fn() -> S,
    read: &impl Fn(&mut S, &[u8], bool) -> Step<T>,
    exact: bool,
) -> Vec<T> {
    let (mut items, mut begin, mut current) = (Vec::new(), 0_usize, state());
    for end in ends {
        while let Some(rest) = data.get(begin..*end).filter(|rest| !rest.is_empty()) {
            match read(&mut current, rest, false) {
                Step::More => break,
                Step::Frame(item, length) => {
                    assert!(
                        length > 0 && length <= rest.len(),
                        "a frame lies in its bytes"
                    );
                    if exact {
                        found_when_whole(rest, length, &item, state, read);
                    }
                    items.push(item);
                    begin += length;
                }
                Step::Drop(item, length) => {
                    assert!(length > 0, "nothing is dropped");
                    items.push(item);
                    begin = begin.saturating_add(length);
                }
                Step::Last(item) => {
                    items.push(item);
                    return items;
                }
            }
        }
    }
    items
}

fn found_when_whole<S, T: PartialEq + Debug>(
    bytes: &[u8],
    length: usize,
    item: &T,
    state: &impl Fn() -> S,
    read: &impl Fn(&mut S, &[u8], bool) -> Step<T>,
) {
    let frame = bytes.get(..length).unwrap_or_default();
    match read(&mut state(), frame, true) {
        Step::Frame(again, same) => assert_eq!((&again, same), (item, length)),
        other => panic!("a whole frame is not seen without what follows it: {other:?}"),
    }
    let Some((_, short @ [_, ..])) = frame.split_last() else {
        return;
    };
    match read(&mut state(), short, false) {
        Step::More => {}
        other => panic!("a frame without its last byte is not incomplete: {other:?}"),
    }
}

/// The pieces, as many short as long ones.
pub(crate) fn cut(data: &[u8], short: u64, long: u64) -> Vec<&[u8]> {
    let mut begin = 0;
    let mut parts = Vec::new();
    for end in ends(data, short, long) {
        parts.push(data.get(begin..end).unwrap_or_default());
        begin = end;
    }
    parts
}

/// Whether `part` is a piece of `whole`'s own memory.
pub(crate) fn lies_in(whole: &[u8], part: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

/// The ends of the pieces: as many short as long ones.
fn ends(data: &[u8], short: u64, long: u64) -> Vec<usize> {
    let mut state = data
        .iter()
        .fold(0x9e37_79b9_7f4a_7c15_u64 ^ long, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut ends = Vec::new();
    let mut at = 0;
    while at < data.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = if state & 0x100 == 0 { short } else { long };
        at = (at + 1 + usize::try_from(state % longest).unwrap_or(0)).min(data.len());
        ends.push(at);
    }
    ends
}
