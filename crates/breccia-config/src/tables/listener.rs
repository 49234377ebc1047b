//! The tables of listeners. Data only.
//!
//! Invariant: every limit has a default, so that no listener is unbounded.

use super::{GIB, KIB, choice};
use crate::field::{
    Choice, Kind, SOME_TIME, Table, count, flag, integer, optional, required, text,
};
use crate::plan::Protocol;

choice!(PROTOCOLS, Protocol, &["s3", "postgresql", "mysql"]);

pub(super) static LISTENER: Table = Table {
    name: "listener",
    header: "[listener.NAME]",
    doc: "Where clients come in.",
    fields: &[
        required(
            "protocol",
            Kind::Choice(&PROTOCOLS),
            "\"redis\"",
            "What clients speak.",
        ),
        required(
            "bind",
            Kind::Bind,
            "\"127.0.0.1:6380\"",
            "Where it listens. Off loopback it needs users, `tls.client-ca` or `insecure`.",
        ),
        required(
            "store",
            Kind::StoreName,
            "\"cache\"",
            "The store it serves.",
        ),
        optional(
            "tls",
            Kind::Table(&TLS_SERVER),
            "TLS towards clients. Without it, plain.",
        ),
        flag("insecure", false, "Lets anybody who can reach it use it."),
        text(
            "deadline",
            SOME_TIME,
            "1s",
            "How long a request may wait here before it is sent; then it fails, not applied.",
        ),
        integer(
            "max-clients",
            count(1_000_000),
            10_000,
            "The most clients at once.",
        ),
        optional(
            "idle-timeout",
            SOME_TIME,
            "How long a client may be silent. Default: for ever.",
        ),
        text(
            "max-request-size",
            Kind::Size {
                least: KIB,
                most: 4 * GIB,
            },
            "64MiB",
            "The largest request.",
        ),
        integer(
            "max-arguments",
            Kind::Integer {
                least: 16,
                most: 1_048_576,
            },
            1_048_576,
            "The most arguments of a request.",
        ),
        integer(
            "max-in-flight",
            count(1_000_000),
            1024,
            "The most unanswered requests of one client; then its next bytes wait.",
        ),
        text(
            "reply-buffer",
            Kind::Size {
                least: 16 * KIB,
                most: GIB,
            },
            "8MiB",
            "How much of its replies may wait for a client that does not read.",
        ),
        text(
            "write-timeout",
            SOME_TIME,
            "10s",
            "How long a full reply buffer may stay full; then the client is disconnected.",
        ),
        text(
            "min-body-rate",
            Kind::Size {
                least: 0,
                most: GIB,
            },
            "1KiB",
            "How many bytes a second the sender of a big request must keep up; 0: no floor.",
        ),
        optional(
            "user",
            Kind::List(&USER),
            "Who may log in. Without users nobody has to. Redis protocol only.",
        ),
    ],
};

static TLS_SERVER: Table = Table {
    name: "tls-server",
    header: "[listener.NAME.tls]",
    doc: "TLS towards clients.",
    fields: &[
        required(
            "cert",
            Kind::File,
            "\"cert.pem\"",
            "The certificate chain, PEM.",
        ),
        required("key", Kind::File, "\"key.pem\"", "Its key, PEM."),
        optional(
            "client-ca",
            Kind::File,
            "Who signs client certificates, PEM. With it, every client must show one.",
        ),
    ],
};

static USER: Table = Table {
    name: "user",
    header: "[[listener.NAME.user]]",
    doc: "One user. A client that gives only a password is `default`.",
    fields: &[
        required(
            "name",
            Kind::Text,
            "\"default\"",
            "The name to log in with.",
        ),
        optional(
            "password",
            Kind::Secret,
            "The password. Without it any will do.",
        ),
    ],
};
