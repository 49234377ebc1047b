//! Checked against a private key made for these tests alone.

use super::*;

const PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAo0M4oe+8i1MFQbMUvoQL\n\
jkdfCtL6rbEWJCW0tauuY9LyFr57KuP1L11j3fRf6IEBOYlg3YmnBjJ1JznF8O3u\n\
n0ZH7JjEpoD2sw2cKBykEO4Q55Ggx2msaFY8ZxCrUll0Ut0QinY3TNkF8kfF0/gt\n\
S5+ZTHWUpTf/mGpC5cABqUhtv8vhlQw8zva2wCPtaYaH+/XYp/ueqRc3VOa2VgiD\n\
aRvYHsZa9XbbrsIniGIHcp63JqkHXCswz1JZdP1jRKyA9wdHNhXTFckyUgRvcstz\n\
IyIJ+KYMlFkmpV8/uWY4+fi30i8lfwihWUKG3Tvd56aV6zlXZ2VELAXqDki5Fken\n\
ZQIDAQAB\n\
-----END PUBLIC KEY-----\n\
";
/// Its private exponent.
const PRIVATE: &str = "\
    156844636cc7fae22697a2ca5ee0cee86d10ad4954cd5ef70443b2c4fa29f7b4e54178e08ae88671c626737d\
    639b5d045d6dacb735217827e2ecadcaa2a37add2f9dfc0c06b2691e9aae7782059f6308e9a1339b32b54c82\
    072cb7119c7a9922d8eab10c8c2106d69377b2a98ca31cc2af140423e170789344824a70a3133f5afb983386\
    b2a2cfc14ca1ee3cc51795eb18fa7dbca8dc405c7e10fc58e4e8c9a45f2ef30fa3d510d66eced3d8f88b10c5\
    84037f420593b5031485fde9615ed970aaf52513890ba524517c8995e37cf1044347c5bd8ac8dc0358213ec1\
    1b4e08288286d32ddbfc7c355fa63bff8516d1dd3c3bc37197f32dd801677a159e56521";

/// Takes an OAEP padding off, as RFC 8017, 7.1.2 has it.
fn decrypt(key: &PublicKey, encrypted: &[u8]) -> Vec<u8> {
    let exponent = BigUint::parse_bytes(PRIVATE.as_bytes(), 16).expect("a number");
    let block = BigUint::from_bytes_be(encrypted).modpow(&exponent, &key.modulus);
    let bytes = block.to_bytes_be();
    let mut padded = vec![0; encrypted.len() - bytes.len()];
    padded.extend_from_slice(&bytes);
    assert_eq!(padded[0], 0);
    let (seed, block) = padded[1..].split_at(HASH_BYTES);
    let seed = xor(seed, &mask(block, HASH_BYTES));
    let block = xor(block, &mask(&seed, block.len()));
    let rest = block
        .strip_prefix(hash(&SHA1, &[b""]).as_slice())
        .expect("the label's hash");
    let end = rest
        .iter()
        .position(|byte| *byte == 1)
        .expect("the end of the filling");
    assert!(rest[..end].iter().all(|byte| *byte == 0));
    rest[end + 1..].to_vec()
}

#[test]
fn the_servers_private_key_gives_the_password_back() {
    let key = PublicKey::read(PUBLIC.as_bytes()).expect("a key");
    let nonce: Vec<u8> = (1..=20).collect();
    for password in [
        "",
        "secret",
        "a password that is longer than the challenge of twenty bytes",
    ] {
        let encrypted = key
            .encrypt_password(password.as_bytes(), &nonce)
            .expect("short enough");
        assert_eq!(encrypted.len(), 256);
        let mixed = decrypt(&key, &encrypted);
        let text: Vec<u8> = mixed
            .iter()
            .zip(nonce.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        assert_eq!(text.strip_suffix(b"\0"), Some(password.as_bytes()));
        assert_ne!(
            key.encrypt_password(password.as_bytes(), &nonce),
            Some(encrypted)
        );
    }
    assert!(key.encrypt_password(&[b'x'; 213], &nonce).is_some());
    assert_eq!(key.encrypt_password(&[b'x'; 214], &nonce), None);
    assert_eq!(key.encrypt_password(b"secret", b""), None);
}

#[test]
fn what_is_no_key_is_none() {
    for cut in 0..PUBLIC.len() - 2 {
        assert_eq!(
            PublicKey::read(&PUBLIC.as_bytes()[..cut]),
            None,
            "cut at {cut}"
        );
    }
    let body = |der: &[u8]| {
        let text = BASE64.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    };
    // A modulus of 8 bits, and even ones and exponents of any size.
    let small = b"\x30\x1a\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\
        \x03\x09\x00\x30\x06\x02\x01\x7f\x02\x01\x03";
    assert_eq!(PublicKey::read(body(small).as_bytes()), None);
    assert_eq!(PublicKey::read(body(b"").as_bytes()), None);
    assert_eq!(PublicKey::read(&vec![b'-'; 1 << 20]), None);
}
