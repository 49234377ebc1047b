//! `breccia explain --sql` of a statement for MySQL or MariaDB.
//!
//! Not a request: the statement is never sent; only the servers' catalogue is read. Invariant: the statement is judged by the very
//! classifier the gateway uses.

use std::fmt::Write as _;

use breccia_config::{Plan, SqlPlan, SqlReadReplicaPlan, StorePlan, TransactionRouting};
use breccia_sql::mysql::class::{Catalogue, Class, Classifier, Mode, Verdict};
use breccia_sql::mysql::monitor;

use super::{Said, say, wait, write_known};
use crate::cli::ExplainArguments;
use crate::registry;

/// The lines for one statement.
pub(super) fn explain(
    plan: &Plan,
    composite: &SqlReadReplicaPlan,
    arguments: &ExplainArguments,
    statement: &str,
) -> String {
    let schema = arguments.database.as_deref();
    let classifier = Classifier::default();
    let read = if arguments.offline {
        Err("it was not asked for: --offline".to_owned())
    } else {
        any_catalogue(plan, composite)
    };
    let (known, mode) = match read {
        Ok((server, (catalogue, mode))) => {
            classifier.set_catalogue(catalogue);
            (Ok(format!("read from {server} now")), mode)
        }
        Err(why) => (Err(why), Mode::of("")),
    };
    let verdict = classifier.classify(statement.as_bytes(), mode, schema);
    let because = match verdict.class {
        Class::Primary(_) => classifier.blame(statement.as_bytes(), mode, schema),
        _ => None,
    };
    let about = (schema, statement, because.as_deref());
    lines(&arguments.store, composite, about, &known, &verdict)
}

/// What a server says of the catalogue, and how it reads texts: the configured primary, or, while that
/// cannot be asked, a replica, whose catalogue is the same; `Err`: what the first one said.
fn any_catalogue(
    plan: &Plan,
    composite: &SqlReadReplicaPlan,
) -> Result<(String, (Catalogue, Mode)), String> {
    let mut first = None;
    let names = std::iter::once(&composite.primary).chain(&composite.replicas);
    for name in names {
        let Some(StorePlan::Mysql(server)) = plan.stores.get(name) else {
            continue;
        };
        match catalogue(name, server, &composite.read_functions) {
            Ok(known) => return Ok((name.clone(), known)),
            Err(why) => {
                first.get_or_insert(why);
            }
        }
    }
    Err(first.unwrap_or_default())
}

/// What one server says; `Err`: why it is not known.
fn catalogue(
    name: &str,
    server: &SqlPlan,
    read_functions: &[String],
) -> Result<(Catalogue, Mode), String> {
    let (endpoint, own) = registry::mysql_endpoint(name, server)
        .map_err(|trouble| trouble.into_lines().join("; "))?;
    let (user, credential) = own.ok_or_else(|| {
        format!(
            "store.{name} has neither `user` nor `monitor-user` to ask as; a gateway cannot read \
             it either: add one"
        )
    })?;
    let login = registry::mysql_login(&user, credential);
    let asking = monitor::ask_catalogue(&endpoint, &login, read_functions);
    wait(name, server, asking)
}

fn lines(
    name: &str,
    composite: &SqlReadReplicaPlan,
    (schema, statement, because): (Option<&str>, &str, Option<&str>),
    known: &Result<String, String>,
    verdict: &Verdict,
) -> String {
    let mut out = String::new();
    let mut line = |key: &str, text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{key:<11}{text}");
    };
    line("statement", &format!("{:?}", statement.trim()));
    let consistency = composite.consistency.name();
    line("store", &format!("{name} (consistency \"{consistency}\")"));
    line("database", schema.unwrap_or("none is entered; --database"));
    write_known(known, &mut line);
    let said = said(verdict, composite);
    line("class", &said.class);
    line("target", said.target);
    line("reason", &said.reason);
    if let Some(because) = because {
        line("namely", because);
    }
    if !verdict.single && verdict.class != Class::Empty {
        line("", "each of these texts goes to one server as a whole");
    }
    if verdict.asks_last_insert_id {
        line(
            "",
            "it asks for LAST_INSERT_ID(), which is of the session: Breccia sets it where it is \
             asked, or keeps the session where it is",
        );
    }
    if verdict.asked.anything() {
        line(
            "",
            "it asks about the statement before it, so it runs where that ran",
        );
    }
    if verdict.ddl {
        line(
            "then",
            "the catalogue is read anew; until that is done, nothing counts as a read",
        );
    }
    for text in in_transaction(composite) {
        line("in BEGIN", text);
    }
    out
}

/// What holds inside of a transaction.
fn in_transaction(composite: &SqlReadReplicaPlan) -> &'static [&'static str] {
    match composite.transactions {
        TransactionRouting::Lazy => &[
            "a READ COMMITTED transaction begins with its proven reads on one replica; the first \
             other statement opens it on the primary (transactions = \"lazy\")",
            "the default isolation of MySQL and MariaDB is REPEATABLE READ, so that does nothing \
             unless the session sets READ COMMITTED, or the servers have transaction_isolation = \
             READ-COMMITTED",
        ],
        _ => &[
            "primary, whatever the statement is (transactions = \"primary\"); only a whole \
             transaction begun as START TRANSACTION READ ONLY may run on a replica",
        ],
    }
}

fn said(verdict: &Verdict, composite: &SqlReadReplicaPlan) -> Said {
    let depends = "depends";
    match &verdict.class {
        Class::Empty => say(
            "empty",
            depends,
            "there is nothing to do: any server may answer",
        ),
        Class::Read if verdict.hint_primary => {
            say("read", "primary", "a comment says `breccia: primary`")
        }
        Class::Read if composite.replicas.is_empty() => {
            let why = "it is proven to read only, but the store has no replicas";
            say("read", "primary", why)
        }
        Class::Read => say(
            "read",
            "replica",
            "it is proven to read only; the primary answers where no replica is fresh enough \
             within replica-wait, and in a session that is pinned",
        ),
        Class::Primary(why) => Said {
            class: format!("not proven ({why})"),
            target: "primary",
            reason: words(why).to_owned(),
        },
        Class::Pin(why) => Said {
            class: format!("pins its session ({why})"),
            target: "primary",
            reason:
                "what it leaves in its session cannot be moved to another server: until that is \
                     gone, the session stays on one connection"
                    .to_owned(),
        },
        Class::Begin {
            read_only: true, ..
        } => say(
            "begin",
            depends,
            "the whole transaction reads only, so it may run on one replica",
        ),
        other => said_of_the_rest(other),
    }
}

fn said_of_the_rest(class: &Class) -> Said {
    let (session, depends) = ("session", "depends");
    match class {
        Class::Begin { .. } => say(
            "begin",
            "primary",
            "a transaction runs on the primary; see below what its first reads may do",
        ),
        Class::Commit | Class::Rollback => say(
            "end of a transaction",
            depends,
            "it goes where its transaction runs; outside of one, to the primary",
        ),
        Class::SetTransaction => say(
            session,
            depends,
            "it is held for the next transaction of its session, and sent where that begins",
        ),
        Class::Set | Class::SetAutocommit(_) | Class::Use(_) => say(
            session,
            "primary",
            "the server tells what it changed, and the other connections of the session get it before \
             they are used",
        ),
        Class::Ddl => say("ddl", "primary", "it changes what the catalogue says"),
        Class::ShowWarnings => say(
            session,
            depends,
            "it asks about the statement before it, so it runs where that ran",
        ),
        Class::Kill { .. } => say(
            "kill",
            depends,
            "numbers are those that Breccia gives to clients: it ends what that client runs",
        ),
        Class::LoadLocal => say(
            "load",
            "primary",
            "it writes; the client's file is asked for only if the listener says local-infile = true",
        ),
        Class::OwnShow { .. } | Class::OwnSet { .. } | Class::OwnReset { .. } => say(
            "Breccia's own",
            depends,
            "Breccia itself answers; no server sees it",
        ),
        Class::OwnMisplaced => say(
            "Breccia's own",
            depends,
            "it is refused: what is for Breccia must be a text of its own",
        ),
        // Told by `said` itself; a doubt goes to the primary.
        _ => say(
            "statement",
            "primary",
            "it is not known to belong elsewhere",
        ),
    }
}

/// The short word of a reason, told at length.
fn words(why: &str) -> &'static str {
    match why {
        "write" => "it writes, or may",
        "function" => "it calls a function that is not known to be harmless on a replica",
        "catalogue" => {
            "it reads from information_schema, performance_schema, mysql or sys, which tell of one \
             server's own state"
        }
        "view" => "it reads from a view that is not proven to read only",
        "engine" => "a table of it is of an engine that is not the same on a replica",
        "no-catalogue" => "it may be a read, but without the catalogue that cannot be proven",
        "unknown-table" => {
            "it names a table that the catalogue does not have, or that the user Breccia asks as may \
             not see"
        }
        "sequence" => "it uses a sequence",
        "variable" => "it reads a variable that differs between connections or servers",
        "several" => "it is more than one statement in one text",
        "executable-comment" => "a comment in it is run by the server (/*! … */ or /*M! … */)",
        "locks" => "it locks rows or tables",
        "into" => "it writes its result into a file or a variable",
        "long" | "too-long" | "too-deep" => "it is too long or too deeply nested to be proven",
        "unproven" | "unparsed" => "it could not be read as a query, so nothing of it is proven",
        "global" => "it sets something for the whole server",
        "call" => "it calls a procedure, which may do anything",
        "procedure" => "it says PROCEDURE, and what that does is not known",
        "generated-column" => {
            "a virtual column of a table in it is not proven to be the same on every server"
        }
        "optimizer-hint" => "a hint in it sets a variable",
        "charset" => "its characters can be read in several ways",
        _ => "it is nothing that is known to be a read",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use breccia_config::StorePlan;

    use super::*;

    fn told(transactions: &str, statement: &str) -> String {
        let text = format!(
            "[store]\na = {{ type = \"mysql\", host = \"h\", user = \"u\" }}\n\
             b = {{ type = \"mysql\", host = \"i\", user = \"u\" }}\n\
             db = {{ type = \"sql-read-replica\", primary = \"a\", replicas = [\"b\"], \
             transactions = \"{transactions}\" }}\n"
        );
        let parsed = breccia_config::parse(&text, "f", Path::new("/tmp"), &|_| None);
        let plan = parsed.expect("a plan").0;
        let Some(StorePlan::SqlReadReplica(composite)) = plan.stores.get("db") else {
            panic!("a composite");
        };
        let arguments = ExplainArguments {
            config: crate::cli::ConfigArgument {
                config: "test".into(),
                data_dir: None,
            },
            hex: false,
            sql: Some(statement.to_owned()),
            database: Some("shop".to_owned()),
            offline: true,
            store: "db".to_owned(),
            key: None,
        };
        explain(&plan, composite, &arguments, statement)
    }

    #[test]
    fn each_kind_has_its_target() {
        let check = |statement: &str, parts: &[&str]| {
            let text = told("primary", statement);
            for part in parts {
                assert!(text.contains(part), "{statement}: no {part:?} in {text}");
            }
        };
        check(
            "INSERT INTO t VALUES (1)",
            &["not proven (", "target     primary"],
        );
        check(
            "START TRANSACTION READ ONLY",
            &["target     depends", "on one replica"],
        );
        check("BEGIN", &["class      begin", "target     primary"]);
        check("CREATE TABLE t (a int)", &["class      ddl", "read anew"]);
        check(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            &["held for the next"],
        );
        check(
            "SELECT GET_LOCK('a', 1)",
            &["pins its session", "target     primary"],
        );
        check("KILL QUERY 7", &["class      kill"]);
        check("CALL f(1)", &["it calls a procedure", "target     primary"]);
    }

    #[test]
    fn lazy_transactions_name_the_default_that_makes_them_do_nothing() {
        let lazy = told("lazy", "BEGIN");
        assert!(
            lazy.contains("REPEATABLE READ") && lazy.contains("lazy"),
            "{lazy}"
        );
        assert!(!told("primary", "BEGIN").contains("REPEATABLE READ"));
    }
}
