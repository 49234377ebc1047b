//! The rows were made with Redis 7.0's INCRBYFLOAT on x86-64.

use super::*;

#[test]
fn sums_are_those_of_redis() {
    let check = |left: &str, right: &str, expected: &str| {
        assert_eq!(
            add(left.as_bytes(), right.as_bytes()).as_deref(),
            Ok(expected),
            "{left} + {right}"
        );
    };
    check("0.1", "0.2", "0.3");
    check("10.5", "0.1", "10.6");
    check("5.0e3", "2.0e2", "5200");
    check("3", "-3", "0");
    check("-0", "0", "0");
    check("1", "1e-20", "1");
    check("-1e-20", "0", "0");
    check("0x1.8p3", "0", "12");
    check(".5", "5.", "5.5");
    check("+1", "+2", "3");
    check("17179869184", "1.5", "17179869185.5");
    check("1e17", "0.1", "100000000000000000.1015625");
}

#[test]
fn what_is_no_number_is_refused() {
    let check = |left: &str, right: &str, refusal: Refusal| {
        assert_eq!(
            add(left.as_bytes(), right.as_bytes()),
            Err(refusal),
            "{left} + {right}"
        );
    };
    for wrong in [
        "", " 1", "1 ", "1e", "e5", ".", "abc", "nan", "0x", "1e5000", "1e-6000", "--1",
    ] {
        check("1", wrong, Refusal::NotFloat);
        check(wrong, "1", Refusal::NotFloat);
    }
    check("inf", "1", Refusal::NotFinite);
    check("inf", "-infinity", Refusal::NotFinite);
    check("1.1e4932", "1.1e4932", Refusal::NotFinite);
}
