//! The target `my_lexer` for libFuzzer; its body, and what it asserts, is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| breccia_fuzz::my_lexer(data));
