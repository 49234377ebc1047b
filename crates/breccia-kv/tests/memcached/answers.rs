//! Whole sessions, compared with a real memcached.
//!
//! Invariant: what is compared is every byte, but for tokens and times to live.

use crate::dice::Dice;
use crate::front::session;
use crate::rows::{MALFORMED, META, SERVERS_ONLY, TEXT};
use crate::twins::Twins;

/// One listener of each kind.
fn all() -> [Twins; 4] {
    [
        Twins::memory(),
        Twins::mixed(),
        Twins::servers(1),
        Twins::servers(3),
    ]
}

#[test]
fn text_commands_answer_as_memcached() {
    for mut twins in all() {
        twins.check_all(TEXT);
        let keys = "nope ".repeat(2000);
        twins.check(&format!("set k 0 0 1\r\nx\r\nget k {keys} k\r\nmn\r\n"));
    }
}

#[test]
fn the_longest_key_is_memcacheds() {
    let key = "k".repeat(250);
    let input = format!("set {key} 0 0 1\r\nx\r\nget {key} {key}\r\ndelete {key}\r\n");
    for mut twins in [Twins::memory(), Twins::servers(1), Twins::servers(3)] {
        twins.check(&input);
    }
    // Typed stores write keys in base64, which leaves room for 187 bytes.
    let ours = session(&Twins::mixed().front.address, input.as_bytes());
    let ours = String::from_utf8(ours).unwrap();
    assert!(
        ours.contains("too long for 'mix/mc' (memcached): it takes 187 bytes"),
        "{ours}"
    );
}

#[test]
fn meta_commands_answer_as_memcached() {
    for mut twins in all() {
        twins.check_all(META);
    }
}

#[test]
fn what_servers_keep_with_an_item_passes_through() {
    for count in [1, 3] {
        let mut twins = Twins::servers(count);
        twins.check_all(SERVERS_ONLY);
    }
}

#[test]
fn malformed_input_answers_as_memcached() {
    for mut twins in all() {
        twins.check_all(MALFORMED);
        generated_faults(&mut twins);
    }
}

fn generated_faults(twins: &mut Twins) {
    let long = "k".repeat(251);
    let opaque = "x".repeat(32);
    for (start, end) in [
        ("set", "0 0 3"),
        ("set", "0 0 3 noreply"),
        ("ms", "3"),
        ("ms", "3 q"),
    ] {
        twins.check(&format!("{start} {long} {end}\r\nabc\r\nmn\r\n"));
    }
    for start in [
        "get", "get k", "gat 1", "incr", "delete", "touch", "mg", "md", "ma", "me",
    ] {
        twins.check(&format!("{start} {long} 1\r\nmn\r\n"));
        twins.check(&format!("{start} {long} noreply\r\nmn\r\n"));
    }
    for start in [
        "mg k",
        "mg k q",
        "ms k 1",
        "ms k 1 Fx",
        "ms k 1 MZ",
        "md k",
        "ma k",
        "ma k MZ",
    ] {
        let data = if start.starts_with("ms") { "x\r\n" } else { "" };
        twins.check(&format!(
            "{start} O{opaque}\r\n{data}{start} O{}\r\n{data}",
            &opaque[1..]
        ));
    }
    let flags = "a b c d e f g h i j k l m n o p r";
    for start in ["mg", "ms", "md", "ma"] {
        twins.check(&format!(
            "{start} k {flags}\r\nmn\r\n{start} k {flags} s\r\nmn\r\n"
        ));
    }
}

#[test]
fn tokens_compare_as_in_memcached() {
    for twins in all() {
        check_tokens(&mut twins.compare_tokens());
    }
}

fn check_tokens(twins: &mut Twins) {
    twins.check("set k 1 100 1\r\nx\r\ngets k\r\n");
    for input in [
        "touch k 200\r\ngat 300 k\r\nmg k T400\r\ncas k 2 0 1 {cas}\r\ny\r\ngets k\r\n",
        "cas k 3 0 2 {cas}\r\n10\r\ncas k 3 0 2 {cas}\r\n11\r\ngets k\r\n",
        "incr k 1\r\ncas k 0 0 1 {cas}\r\nz\r\ngets k\r\n",
        "ma k C{cas} D5 v c t\r\nma k C{cas} v\r\nma k C{cas} q k O1\r\ngets k\r\n",
        "ma k C{cas} MD D100 v T50 t\r\nmg k v t c\r\n",
        "ms k 1 C{cas} c k O9 F7\r\n5\r\nms k 1 C{cas} c k\r\nx\r\ngets k\r\n",
        "ms k 1 MA C{cas} c\r\n6\r\nms k 1 MP C{cas} c\r\n6\r\ngets k\r\n",
        "ms k 1 MR C{cas} c\r\n6\r\nms k 1 ME C{cas} c\r\n6\r\ngets k\r\n",
        "ms k 1 MS C{cas} q\r\n7\r\nms k 1 MS C{cas} q\r\n8\r\nmn\r\nget k\r\n",
        "md k C9999 k\r\nmd k C{cas} k O5\r\nmd k C{cas}\r\nmd k C0\r\n",
    ] {
        twins.check_with_cas(input);
    }
    twins.check("set k 0 0 1\r\nx\r\n");
    for input in [
        "ma k C9999\r\nma k C{cas}\r\nset k 0 0 0\r\n\r\nma k C9999\r\n",
        "md k C0\r\nms k 1 MA C0 c\r\n1\r\nms k 1 C0 c\r\n1\r\nma k C0 v\r\nget k\r\n",
    ] {
        twins.check_with_cas(input);
    }
}

#[test]
fn what_only_memcached_can_do_is_refused_by_other_members() {
    let twins = Twins::memory();
    let check = |input: &str, what: &str| {
        let ours = session(&twins.front.address, input.as_bytes());
        let refusal = format!("CLIENT_ERROR breccia: {what}");
        assert!(
            ours.starts_with(refusal.as_bytes()),
            "{}",
            String::from_utf8_lossy(&ours)
        );
    };
    let needs = |what: &str| format!("{what} needs memcached shards only; 'mem' is memory\r\n");
    for letter in ["N5", "R5", "h", "l"] {
        check(
            &format!("mg k {letter}\r\n"),
            &needs(&format!("the mg flag '{}'", &letter[..1])),
        );
    }
    check("md k I\r\n", &needs("the md flag 'I'"));
    check("ms k 1 I C5\r\nx\r\n", &needs("the ms flag 'I'"));
    check("me k\r\n", &needs("'me'"));
    check("flush_all 10\r\n", &needs("flush_all with a delay"));
    check("watch\r\n", "'watch' acts on one server");
}

#[test]
fn random_requests_answer_as_memcached() {
    let mut dice = Dice(7);
    for _ in 0..3 {
        for mut twins in all() {
            for _ in 0..400 {
                // One at a time: an item that an unsent reply of memcached's still holds is counted
                // in a copy, which is not padded.
                twins.check(&dice.request());
            }
        }
    }
}
