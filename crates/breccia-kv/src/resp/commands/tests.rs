//! The table's promises: every command is found, rows are sorted, keys stand where they should.
//!
//! Not the comparison with a live server; that is `tests/command_keys.rs`. Invariant: no row here
//! needs anything but the generated table.

use super::{COMMANDS, CommandSpec, Flags, KeyError, KeyShape, RequestPolicy, ResponsePolicy};
use super::{find, keys, pattern_option};

fn spec(name: &str) -> &'static CommandSpec {
    find(name.as_bytes()).unwrap_or_else(|| panic!("{name} is not in the table"))
}

fn found(request: &str) -> Result<Vec<usize>, KeyError> {
    let arguments: Vec<&[u8]> = request
        .split(' ')
        .map(|word| {
            if word == "''" {
                b"".as_slice()
            } else {
                word.as_bytes()
            }
        })
        .collect();
    let mut positions = vec![99];
    keys(
        spec(std::str::from_utf8(arguments[0]).unwrap()),
        arguments.as_slice(),
        &mut positions,
    )?;
    Ok(positions)
}

#[test]
fn every_command_is_found_in_any_case() {
    for row in COMMANDS {
        for name in [row.name.to_owned(), row.name.to_ascii_uppercase()] {
            assert_eq!(find(name.as_bytes()).map(|spec| spec.name), Some(row.name));
        }
    }
}

#[test]
fn what_is_no_command_is_not_found() {
    for name in [
        "",
        "g",
        "getx",
        "ge",
        "xyzzy",
        "GET ",
        "get\0",
        "a name longer than any command has",
    ] {
        assert_eq!(find(name.as_bytes()), None, "{name:?}");
    }
    assert_eq!(find(&[0xff; 300]), None);
    // Bytes that only differ from a name in the bit that folds letters.
    assert_eq!(find(b"georadius\x7fro"), None);
}

#[test]
fn rows_are_sorted_and_lower_case() {
    fn check(rows: &[CommandSpec]) {
        assert!(rows.is_sorted_by(|one, other| one.name < other.name));
        for row in rows {
            assert_eq!(row.name, row.name.to_ascii_lowercase());
            check(row.subcommands);
        }
    }
    check(COMMANDS);
}

#[test]
fn shapes_tell_the_one_fixed_key() {
    let check = |name, shape| assert_eq!(spec(name).shape(), shape, "{name}");
    check("get", KeyShape::One(1));
    check("bitfield", KeyShape::One(1));
    check("ping", KeyShape::None);
    check("spublish", KeyShape::Many);
    check("object", KeyShape::Many);
    check("mget", KeyShape::Many);
    check("eval", KeyShape::Many);
    check("sort", KeyShape::Many);
    assert_eq!(
        spec("object").subcommand(b"ENCODING").unwrap().shape(),
        KeyShape::One(2)
    );
}

#[test]
fn tips_and_flags_are_carried() {
    assert_eq!(spec("dbsize").request_policy, RequestPolicy::AllShards);
    assert_eq!(spec("dbsize").response_policy, ResponsePolicy::Sum);
    assert_eq!(
        spec("config").subcommand(b"set").unwrap().request_policy,
        RequestPolicy::AllEndpoints
    );
    assert!(spec("smembers").nondeterministic_order);
    assert!(spec("time").nondeterministic_output);
    assert!(
        spec("blpop")
            .flags
            .contains(Flags::BLOCKING.union(Flags::NOSCRIPT))
    );
    assert!(spec("set").writes() && !spec("get").writes());
    assert!(spec("get").accepts(2) && !spec("get").accepts(3) && spec("mget").accepts(9));
}

#[test]
fn keys_stand_where_the_specifications_say() {
    let check = |request: &str, wanted: &[usize]| {
        assert_eq!(found(request).as_deref(), Ok(wanted), "{request}");
    };
    check("PING", &[]);
    check("get a", &[1]);
    check("MSET a 1 b 2 c 3", &[1, 3, 5]);
    check("OBJECT ENCODING a", &[2]);
    check("CONFIG GET x", &[]);
    check("EVAL s 2 a b c", &[3, 4]);
    check("EVAL s 0 a", &[]);
    check("ZUNIONSTORE d 2 a b WEIGHTS 1 2", &[1, 3, 4]);
    check("XREAD COUNT 5 STREAMS a b 0 0", &[4, 5]);
    check("XREADGROUP GROUP streams streams STREAMS a >", &[5]);
    check("BLMPOP 0 2 a b LEFT", &[3, 4]);
    check("SORT a BY store GET store LIMIT 0 1 STORE d", &[1, 10]);
    check("SORT a STORE d STORE e", &[1, 5]);
    check("GEORADIUS a 1 1 1 m STORE STOREDIST ASC", &[1, 7]);
    check("GEORADIUSBYMEMBER a m 1 m STOREDIST d", &[1, 6]);
    check("MIGRATE h 1 k 0 5", &[3]);
    check("MIGRATE h 1 '' 0 5 AUTH KEYS KEYS a b", &[9, 10]);
    check("SPUBLISH channel text", &[]);
}

#[test]
fn a_malformed_request_is_an_error() {
    let check = |request: &str, wanted| assert_eq!(found(request), Err(wanted), "{request}");
    check("GET", KeyError::Arity);
    check("OBJECT", KeyError::Arity);
    check("OBJECT FROB a", KeyError::UnknownSubcommand);
    check("EVAL s x a", KeyError::KeyCount);
    check("EVAL s -1 a", KeyError::KeyCount);
    check("EVAL s +1 a", KeyError::KeyCount);
    check("EVAL s 01 a", KeyError::KeyCount);
    check("EVAL s 2 a", KeyError::KeyCount);
    check("EVAL s 18446744073709551616 a", KeyError::KeyCount);
    check("XREAD COUNT 5 a 0", KeyError::Keyword);
    check("XREAD COUNT STREAMS a", KeyError::Arity);
}

#[test]
fn sort_patterns_are_told() {
    let check = |request: &str, wanted| {
        let arguments: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let spec = spec(std::str::from_utf8(arguments[0]).unwrap());
        assert_eq!(
            pattern_option(spec, arguments.as_slice()),
            wanted,
            "{request}"
        );
    };
    check("SORT a BY nosort GET #", None);
    check("SORT a BY w_*", Some("BY"));
    check("sort_ro a get o_*", Some("GET"));
    check("SORT a STORE BY LIMIT 0 1", None);
    check("GET a", None);
}
