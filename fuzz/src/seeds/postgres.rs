//! Seeds of the PostgreSQL targets.
//!
//! Readable, one for each thing the wire and the language can say. Invariant: none needs more than a
//! few hundred bytes.

pub(super) const STARTUPS: [&[u8]; 6] = [
    b"\x00\x00\x00\x29\x00\x03\x00\x00user\0alice\0database\0shop\0a\0b\0\0\0",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x14\x00\x03\x00\x02user\0alice\0\0",
    b"\x00\x00\x00\x08\x04\xd2\x16\x30",
    b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x07\x01\x02\x03\x04",
    b"\x00\x00\x27\x11\x00\x03\x00\x00",
    b"\x00\x00\x00\x09\x00\x02\x00\x00\0",
];

pub(super) const FRAMES: [&[u8]; 6] = [
    b"Q\x00\x00\x00\x0dSELECT 1\0X\x00\x00\x00\x04",
    b"P\x00\x00\x00\x18s1\0SELECT $1\0\x00\x01\x00\x00\x00\x17B\x00\x00\x00\x13\0s1\0\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00D\x00\x00\x00\x06P\0E\x00\x00\x00\x09\0\x00\x00\x00\x00S\x00\x00\x00\x04",
    b"C\x00\x00\x00\x08Ss1\0H\x00\x00\x00\x04d\x00\x00\x00\x06a\nc\x00\x00\x00\x04f\x00\x00\x00\x07no\0",
    b"S\x00\x00\x00\x16TimeZone\0UTC\0rest\0K\x00\x00\x00\x0c\x00\x00\x00\x07\x00\x00\x00\x08Z\x00\x00\x00\x05T",
    b"E\x00\x00\x00\x1dSERROR\0C25006\0Mread only\0\0Z\x00\x00\x00\x05I",
    b"d\x3f\xff\xff\xff...Q\xff\xff\xff\xff",
];

/// A verifier, a first message, a last message and a guess, on a line each.
pub(super) const EXCHANGES: [&[u8]; 6] = [
    b"SCRAM-SHA-256$1:YnJlY2NpYS1mdXp6LXNhbA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nn,,n=,r=abc\nc=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\npencil",
    b"r=abc,s=YnJl,i=4096\nx,s=YnJl,i=4096\n\npen",
    b"\np=tls-server-end-point,,n=a,r=abc\nc=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsdGhlIGVuZCBvZiBhIGNoYW5uZWw=,r=abc,p=AAAA\npencil ",
    b"\ny,,n=,r=abc\nc=eSws,r=,p=\n",
    b"\nn,a=b,n=a,r=abc,m=x\nc=bixhPWIs,r=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\npen\xc2\xadcil",
    b"\n,s=,i=0\n,s=,i=1000001\nx,s=,i=1",
];

pub(super) const STATEMENTS: [&[u8]; 12] = [
    b"SELECT a, \"B\" FROM t WHERE c = 'x' AND d > -1.5e3 /* a /* b */ */ -- breccia: primary\n;",
    b"select E'it\\'s', U&'\\0041' , X'0F', b'01', N'n', $tag$ ' $$ $tag$, 'now', 'yesterday'",
    b"insert into t values (1, .5, 0xff, 1_000) returning *; select 1",
    b"select a[1:2], b::text, c := 1, d @-1, e <-1, f+-1, g--h\n+1",
    b"WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x FOR UPDATE",
    b"BEGIN READ ONLY; SET LOCAL a = 'b'; COMMIT AND CHAIN",
    b"select 'a'\n'b', 'c' 'd', e'a'\n'b'",
    b"PREPARE p AS SELECT $1; EXECUTE p(1); DEALLOCATE ALL; DISCARD ALL",
    b"DO $$ begin perform 1; end $$; CALL f(); COPY t FROM STDIN; EXPLAIN ANALYZE SELECT 1",
    b"SET breccia.target = 'primary'; SHOW breccia.token; RESET ALL; SET a TO DEFAULT",
    b"SELECT 'not ended; \"nor this",
    b"s\xc3\xa9lect \"\xe2\x82\xac\" FROM caf\xc3\xa9 WHERE $1 = 1..2 { \\",
];
