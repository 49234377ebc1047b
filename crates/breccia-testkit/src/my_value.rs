//! Parameters of a prepared statement, as a client sends them.
//!
//! Invariant: a value is sent as the type it has, and no type is kept from one execution to the next.

use crate::my_reply::lenenc_bytes;

/// A parameter of a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MyValue<'a> {
    /// NULL.
    Null,
    /// A BIGINT.
    Int(i64),
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// Sent before, by [`crate::MyClient::long_data`].
    Long,
}

/// The body of `COM_STMT_EXECUTE`.
pub(crate) fn execution(id: u32, values: &[MyValue<'_>], flags: u8, typed: bool) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    body.push(flags);
    body.extend(1_u32.to_le_bytes());
    if !values.is_empty() {
        put_values(&mut body, values, typed);
    }
    body
}

fn put_values(body: &mut Vec<u8>, values: &[MyValue<'_>], typed: bool) {
    let mut nulls = vec![0_u8; values.len().div_ceil(8)];
    let (mut kinds, mut bytes) = (Vec::new(), Vec::new());
    for (at, value) in values.iter().enumerate() {
        let kind = match value {
            MyValue::Null => {
                if let Some(byte) = nulls.get_mut(at / 8) {
                    *byte |= 1 << (at % 8);
                }
                0x06
            }
            MyValue::Int(number) => {
                bytes.extend(number.to_le_bytes());
                0x08
            }
            MyValue::Bytes(text) => {
                lenenc_bytes(&mut bytes, text);
                0xfd
            }
            MyValue::Long => 0xfc,
        };
        kinds.extend([kind, 0]);
    }
    body.extend(nulls);
    body.push(u8::from(typed));
    if typed {
        body.extend(kinds);
    }
    body.extend(bytes);
}
