//! What a server says of a prepared statement: its parameters and its columns.
//!
//! Pure. A driver keeps that and reads all later rows by it, so a statement that is prepared anew
//! somewhere must still be described so. Invariant: two descriptions have one [`Shape`] only if each
//! row of one is read as a row of the other.

use xxhash_rust::xxh3::xxh3_64;

use super::codec;

/// Parameters and columns of a statement, by a hash.
///
/// Of a column counts what PostgreSQL compares before it says that a cached plan must not change its
/// result type (`equalTupleDescs` in `tupdesc.c`), as far as a description shows it: name, type, size
/// and modifier, and not of which table it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape(u64);

/// The two messages of a description, as they come.
#[derive(Debug, Default)]
pub struct Description {
    parameters: u64,
}

impl Description {
    /// Takes a message; the shape once it is whole.
    pub fn take(&mut self, tag: u8, body: &[u8]) -> Option<Shape> {
        match tag {
            b't' => {
                self.parameters = xxh3_64(body);
                None
            }
            b'T' | b'n' => {
                let parameters = std::mem::take(&mut self.parameters);
                let mut told = parameters.to_be_bytes().to_vec();
                told.push(tag);
                if write_columns(&mut told, body).is_none() {
                    told.extend_from_slice(body);
                }
                Some(Shape(xxh3_64(&told)))
            }
            _ => None,
        }
    }
}

/// Writes what counts of each column of a `RowDescription`; `None`: it is malformed.
fn write_columns(out: &mut Vec<u8>, body: &[u8]) -> Option<()> {
    // Before the type: the table and the column's number there. Behind the modifier: the format.
    const TABLE_BYTES: usize = 6;
    const TYPE_BYTES: usize = 10;
    const FORMAT_BYTES: usize = 2;
    if body.is_empty() {
        return Some(());
    }
    let (_, mut rest) = codec::int16(body)?;
    while !rest.is_empty() {
        let (name, after) = codec::text(rest)?;
        out.extend_from_slice(name);
        out.push(0);
        let kind = after.get(TABLE_BYTES..TABLE_BYTES + TYPE_BYTES)?;
        out.extend_from_slice(kind);
        rest = after.get(TABLE_BYTES + TYPE_BYTES + FORMAT_BYTES..)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, table: u32, kind: u32, modifier: i32) -> Vec<u8> {
        let mut body = vec![0, 1];
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&[0, 4]);
        body.extend_from_slice(&modifier.to_be_bytes());
        body.extend_from_slice(&[0, 0]);
        body
    }

    fn shape(parameters: &[u8], tag: u8, body: &[u8]) -> Shape {
        let mut description = Description::default();
        assert_eq!(description.take(b't', parameters), None);
        description.take(tag, body).expect("a shape")
    }

    #[test]
    fn what_rows_are_read_by_tells_shapes_apart_and_the_table_does_not() {
        let first = shape(b"\0\0", b'T', &column("a", 1, 23, -1));
        assert_eq!(first, shape(b"\0\0", b'T', &column("a", 2, 23, -1)));
        for other in [
            shape(b"\0\0", b'T', &column("b", 1, 23, -1)),
            shape(b"\0\0", b'T', &column("a", 1, 25, -1)),
            shape(b"\0\0", b'T', &column("a", 1, 23, 8)),
            shape(b"\0\x01\0\0\0\x17", b'T', &column("a", 1, 23, -1)),
            shape(b"\0\0", b'n', b""),
            shape(b"\0\0", b'T', b"\0\x01a"),
        ] {
            assert_ne!(first, other);
        }
    }
}
