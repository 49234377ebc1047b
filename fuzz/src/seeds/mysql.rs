//! What MySQL's and MariaDB's peers send.

/// Packets with their headers: an OK, one with changes, rows and their end, an error, a prepared
/// statement and its execution.
pub(super) const FRAMES: [&[u8]; 7] = [
    b"\x07\0\0\x01\0\0\0\x02\0\0\0",
    b"\x2b\0\0\x01\0\x01\x05\x02\x40\0\0\0\x21\
      \0\x0f\x0aautocommit\x03OFF\x01\x05\x04mail\x02\x02\x011\x05\x01\0\x7f\x02\0\x01",
    b"\x01\0\0\x01\x01\x17\0\0\x02\x03def\0\0\0\x011\0\x0c\x3f\0\x01\0\0\0\x03\x81\0\0\0\0\
      \x02\0\0\x03\x011\x05\0\0\x04\xfe\0\0\x02\0",
    b"\x17\0\0\x01\xff\x15\x04#28000Access denied",
    b"\x0c\0\0\x01\0\x01\0\0\0\x01\0\x02\0\0\0\0",
    b"\x13\0\0\0\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\xfd\0\x05\0\0",
    b"\x05\0\0\0\x03DO 1\x01\0\0\0\x01",
];

/// Payloads: two greetings, a request for TLS, answers, a wish for another way, another user.
pub(super) const HANDSHAKES: [&[u8]; 7] = [
    b"\x0a5.5.5-10.11.6-MariaDB\0\x07\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0\
      ijklmnopqrst\0mysql_native_password\0",
    b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0\
      ijklmnopqrst\0caching_sha2_password\0",
    b"\x00\x8a\x08\0\0\0\0\x40\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x0d\x82\x38\0\0\0\0\x40\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
      ann\0\x02xymail\0mysql_native_password\0\x0b\x03_os\x05Linux",
    b"\0\x82\x08\0\0\0\0\x40\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x1d\0\0\0ann\0\0client_ed25519",
    b"\xfeclient_ed25519\0abcdefghijklmnopqrstuvwxyz012345",
    b"ann\0\x02xymail\0\x2d\0mysql_native_password\0",
];

/// A choice, a proof, an answer and a guess.
pub(super) const LOGINS: [&[u8]; 8] = [
    b"0\nabcdefghijklmnopqrst\n\npencil",
    b"1\nabcdefghijklmnopqrstuvwxyz012345\n\x01\x04\npencil",
    b"2\n\xfeclient_ed25519\0abcdefghijklmnopqrstuvwxyz012345\nx\npencil",
    b"C\npencil\npencil\0\nwrong",
    b"4\n\xfecaching_sha2_password\0abcdefghijklmnopqrst\0\n\x01\x04\n",
    b"1\n\x01\x03\n\x01\x04\n",
    b"E\n\x01\x04\n\x01-----BEGIN PUBLIC KEY-----\npencil",
    KEY,
];

const KEY: &[u8] = b"1\n\n\n-----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC8H8ePeKWnoAWJT7m3tRxGymCS\n\
    RnnJeum+7kaemp3mHDYKB3KVSY8MzoBjTPv8IgasJOlfZSdEGEzMuzIdQq8PrfLm\n\
    +gQbWX2yZpSdcPjIk/doeRf0ja4gMhTi+vhreAnQP0Yj5VqJVp1o2+nMdmi4yvge\n\
    GLSWRXdlpD+rIUxwDwIDAQAB\n\
    -----END PUBLIC KEY-----\n";
