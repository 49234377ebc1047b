//! What a client was told of its session's parameters, and how its texts are read.
//!
//! Not what the settings are ([`crate::postgres::settings`]). Invariant: what a client was told last is
//! so for all that it sends from then on, on whichever connection that runs.

use std::collections::BTreeMap;

use crate::postgres::codec::message;

/// Parameters that are a session's own, of those that servers tell; others are the server's.
const NAMES: [&str; 7] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "search_path",
    "standard_conforming_strings",
    "TimeZone",
];
const CONFORMING: &str = "standard_conforming_strings";
const ENCODING: &str = "client_encoding";

/// Encodings whose characters may hold bytes that look like ASCII.
const UNSAFE_ENCODINGS: [&str; 7] = [
    "BIG5",
    "GB18030",
    "GBK",
    "JOHAB",
    "SHIFT_JIS_2004",
    "SJIS",
    "UHC",
];

/// What a client was told of its parameters.
#[derive(Debug, Default)]
pub(super) struct Told([Option<Box<str>>; NAMES.len()]);

impl Told {
    /// It was told one.
    pub(super) fn note(&mut self, name: &str, value: &str) {
        let place = NAMES.iter().zip(&mut self.0).find(|it| *it.0 == name);
        if let Some((_, told)) = place {
            *told = Some(value.into());
        }
    }

    /// Tells what is otherwise on the connection that the client uses from now on.
    pub(super) fn renew(&mut self, parameters: &BTreeMap<String, String>, out: &mut Vec<u8>) {
        for (name, told) in NAMES.iter().zip(&mut self.0) {
            if let Some(value) = parameters.get(*name)
                && told.as_deref() != Some(value)
            {
                message::parameter_status(out, name, value);
                *told = Some(value.as_str().into());
            }
        }
    }
}

/// What has to be known to look into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reads {
    /// A backslash in a string is no escape.
    conforming: bool,
    /// What looks like ASCII is so.
    safe: bool,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            conforming: true,
            safe: true,
        }
    }
}

impl Reads {
    /// A parameter is another now.
    pub(super) fn note(&mut self, name: &str, value: &str) {
        match name {
            CONFORMING => self.conforming = value != "off",
            ENCODING => self.safe = !UNSAFE_ENCODINGS.contains(&value.to_uppercase().as_str()),
            _ => {}
        }
    }

    /// A setting is again what it was at the start; none: all are.
    pub(super) fn go_back(&mut self, start: Self, name: Option<&str>) {
        let is = |of: &str| name.is_none_or(|name| name.eq_ignore_ascii_case(of));
        if is(CONFORMING) {
            self.conforming = start.conforming;
        }
        if is(ENCODING) {
            self.safe = start.safe;
        }
    }

    /// Whether texts can be looked into.
    pub(super) fn legible(self) -> bool {
        self.conforming && self.safe
    }
}

/// Whether a setting is one by which texts are read.
pub(super) fn is_read_by(name: &str) -> bool {
    [CONFORMING, ENCODING]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told_and_only_what_is_the_sessions() {
        let mut told = Told::default();
        told.note("TimeZone", "UTC");
        told.note("DateStyle", "ISO, MDY");
        told.note("in_hot_standby", "off");
        let pairs = [
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "ISO, MDY"),
            ("in_hot_standby", "on"),
        ];
        let parameters = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let parameters = BTreeMap::from(parameters);
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        told.renew(&parameters, &mut out);
        message::parameter_status(&mut expected, "TimeZone", "Asia/Tokyo");
        assert_eq!(out, expected);
        told.renew(&parameters, &mut out);
        assert_eq!(out, expected, "told twice");
    }

    #[test]
    fn what_is_read_otherwise_is_not_looked_into() {
        let mut reads = Reads::default();
        let start = reads;
        reads.note(CONFORMING, "off");
        assert!(!reads.legible());
        reads.go_back(start, Some("Standard_Conforming_Strings"));
        reads.note(ENCODING, "sjis");
        assert!(!reads.legible());
        reads.note("TimeZone", "off");
        reads.note(ENCODING, "UTF8");
        assert!(reads.legible());
        let mut other = start;
        other.note(CONFORMING, "off");
        reads.go_back(other, None);
        assert!(!reads.legible());
    }
}
