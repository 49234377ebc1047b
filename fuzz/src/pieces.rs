//! Input cut into pieces, as a socket would deliver it.
//!
//! Invariant: the pieces together are the input, and the cuts depend on the input alone.

/// The ends of the pieces: some of one byte, some of hundreds.
pub(crate) fn ends(data: &[u8]) -> Vec<usize> {
    let mut state = data.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut ends = Vec::new();
    let mut at = 0;
    while at < data.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = if state & 0x100 == 0 { 4 } else { 300 };
        at = (at + 1 + usize::try_from(state % longest).unwrap_or(0)).min(data.len());
        ends.push(at);
    }
    ends
}

/// Reads `data` item after item, first given whole and then in pieces, and holds the two against each
/// other. `read` looks at the bytes from the current item on; it answers the item and its length, or
/// `None` to ask for more.
pub(crate) fn same_in_pieces<S, T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    state: impl Fn() -> S,
    read: impl Fn(&mut S, &[u8]) -> Option<(T, usize)>,
) -> Vec<T> {
    let run = |ends: &[usize]| {
        let (mut items, mut begin, mut state) = (Vec::new(), 0, state());
        for end in ends {
            while let Some(rest) = data.get(begin..*end).filter(|rest| !rest.is_empty()) {
                let Some((item, length)) = read(&mut state, rest) else {
                    break;
                };
                items.push(item);
                if length == 0 {
                    return items;
                }
                begin += length;
            }
        }
        items
    };
    let (whole, pieces) = (run(&[data.len()]), run(&ends(data)));
    assert_eq!(
        whole, pieces,
        "the answer depends on how the bytes were cut"
    );
    whole
}
