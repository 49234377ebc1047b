//! `breccia explain --sql`: what a statement is, where it goes, and why.
//!
//! Not a request: the statement is never sent; only the catalogue of its database is read. Invariant:
//! the statement is judged by the very classifier the gateway uses.

mod mysql;

use std::fmt::Write as _;
use std::sync::Arc;

use breccia_config::{Plan, Protocol, SqlPlan, SqlReadReplicaPlan, StorePlan, TransactionRouting};
use breccia_sql::SqlError;
use breccia_sql::class::{Blame, Catalogue, Class, Classifier, Verdict};
use breccia_sql::postgres::monitor;
use breccia_sql::postgres::upstream::Login;

use crate::cli::ExplainArguments;
use crate::registry;
use crate::trouble::Trouble;

/// The lines for one statement.
pub(super) fn explain(
    plan: &Plan,
    arguments: &ExplainArguments,
    statement: &str,
) -> Result<String, Trouble> {
    let name = &arguments.store;
    let Some(StorePlan::SqlReadReplica(composite)) = plan.stores.get(name) else {
        let kind = plan.stores.get(name).map_or("?", StorePlan::type_name);
        return Err(Trouble::refused(format!(
            "'{name}' is of type {kind}, and statements go to a sql-read-replica; {}",
            mend(plan)
        )));
    };
    if plan.spoken(name) == Some(Protocol::Mysql) {
        return Ok(mysql::explain(plan, composite, arguments, statement));
    }
    let Some(StorePlan::Postgresql(primary)) = plan.stores.get(&composite.primary) else {
        return Err(Trouble::refused(format!(
            "the primary of '{name}' is of type neither postgresql nor mysql; nothing else can be explained"
        )));
    };
    let database = arguments.database.as_deref().unwrap_or(&primary.database);
    let read = if arguments.offline {
        Err("it was not asked for: --offline".to_owned())
    } else {
        any_catalogue(plan, composite, database)
    };
    let classifier = Classifier::new();
    let mut blamed = None;
    let known = match read {
        Ok((server, (catalogue, blame))) => {
            let catalogue = Arc::new(catalogue);
            classifier.set_catalogue(Arc::clone(&catalogue));
            blamed = Some((catalogue, blame));
            Ok(format!("read from {server} now"))
        }
        Err(why) => Err(why),
    };
    let verdict = classifier.classify(statement.as_bytes(), true);
    let because = match (&verdict.class, &blamed) {
        (Class::Primary(why), Some((catalogue, blame))) => blame.because(catalogue, statement, why),
        _ => None,
    };
    let about = (database, statement, because.as_deref());
    Ok(lines(name, composite, about, &known, &verdict))
}

/// Which stores a statement can be explained for.
fn mend(plan: &Plan) -> String {
    let able = plan.stores.iter().filter(|(_, store)| store.is_sql());
    let able: Vec<&str> = able.map(|(name, _)| name.as_str()).collect();
    match able.as_slice() {
        [] => "there is none in this file".to_owned(),
        able => format!("name one of those: {}", able.join(", ")),
    }
}

/// What a server says of the catalogue: the configured primary, or, while that cannot be asked, a
/// replica, whose catalogue is the same; `Err`: what the first one said.
fn any_catalogue(
    plan: &Plan,
    composite: &SqlReadReplicaPlan,
    database: &str,
) -> Result<(String, (Catalogue, Blame)), String> {
    let mut first = None;
    let names = std::iter::once(&composite.primary).chain(&composite.replicas);
    for name in names {
        let Some(StorePlan::Postgresql(server)) = plan.stores.get(name) else {
            continue;
        };
        match catalogue(name, server, database, &composite.read_functions) {
            Ok(known) => return Ok((name.clone(), known)),
            Err(why) => {
                first.get_or_insert(why);
            }
        }
    }
    Err(first.unwrap_or_default())
}

/// What one server says of its catalogue; `Err`: why it is not known.
fn catalogue(
    name: &str,
    server: &SqlPlan,
    database: &str,
    allowed: &[String],
) -> Result<(Catalogue, Blame), String> {
    let (endpoint, own_role) =
        registry::sql_endpoint(name, server).map_err(|trouble| trouble.into_lines().join("; "))?;
    let (role, credential) = own_role.ok_or_else(|| {
        format!(
            "store.{name} has neither `user` nor `monitor-user` to ask as; a gateway cannot read \
             it either: add one"
        )
    })?;
    let login = Login {
        role,
        credential,
        database: database.to_owned(),
        read_only: false,
    };
    let reading = monitor::catalogue(&endpoint, &login, allowed);
    Ok(wait(name, server, reading)?.finish_blaming())
}

/// Waits for what is asked of a server; `Err`: why that is not known.
fn wait<T>(
    name: &str,
    server: &SqlPlan,
    asking: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let answer = runtime.block_on(async { tokio::time::timeout(server.timeout, asking).await });
    runtime.shutdown_background();
    match answer {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "{name} did not tell it within {:?} (store.{name}.timeout)",
            server.timeout
        )),
    }
}

/// The line on where the catalogue is from, or why there is none.
fn write_known(known: &Result<String, String>, mut line: impl FnMut(&str, &str)) {
    match known {
        Ok(how) => line("catalogue", how),
        Err(why) => {
            line("catalogue", &format!("not known: {why}"));
            line(
                "",
                "without it no query is proven to be a read; a gateway in that state sends all of \
                 them to the primary",
            );
        }
    }
}

/// What is said of a statement.
struct Said {
    class: String,
    target: &'static str,
    reason: String,
}

fn lines(
    name: &str,
    composite: &SqlReadReplicaPlan,
    (database, statement, because): (&str, &str, Option<&str>),
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
    line("database", database);
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
    if verdict.ddl {
        line(
            "then",
            "the catalogue is read anew; until that is done, nothing counts as a read",
        );
    }
    let in_transaction = match composite.transactions {
        TransactionRouting::Lazy => {
            "a READ COMMITTED transaction begins with its proven reads on one replica; the first \
             other statement opens it on the primary (transactions = \"lazy\")"
        }
        _ => {
            "primary, whatever the statement is (transactions = \"primary\"); only a whole \
             transaction begun as BEGIN READ ONLY may run on a replica"
        }
    };
    line("in BEGIN", in_transaction);
    out
}

fn say(class: &str, target: &'static str, reason: &str) -> Said {
    Said {
        class: class.to_owned(),
        target,
        reason: reason.to_owned(),
    }
}

fn said(verdict: &Verdict, composite: &SqlReadReplicaPlan) -> Said {
    let hint = "a comment says `breccia: primary`";
    match &verdict.class {
        Class::Empty => say(
            "empty",
            "depends",
            "there is nothing to do: any server may answer",
        ),
        Class::Read if verdict.hint_primary => say("read", "primary", hint),
        Class::Read if composite.replicas.is_empty() => say(
            "read",
            "primary",
            "it is proven to read only, but the store has no replicas",
        ),
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
        Class::Ddl => say("ddl", "primary", "it changes what the catalogue says"),
        other => said_of_session(other, composite),
    }
}

/// What is said of what concerns the session rather than rows.
fn said_of_session(class: &Class, composite: &SqlReadReplicaPlan) -> Said {
    match class {
        Class::Begin {
            read_only: true, ..
        } => say(
            "begin",
            "depends",
            "a READ ONLY transaction runs whole on one replica that is fresh enough, else on the \
             primary",
        ),
        Class::Begin { .. } if composite.transactions == TransactionRouting::Lazy => say(
            "begin",
            "depends",
            "it is held back until a statement shows where the transaction goes",
        ),
        Class::Begin { .. } => say("begin", "primary", "its statements may write"),
        Class::Commit | Class::Rollback => say(
            "end of transaction",
            "depends",
            "it goes where its transaction runs",
        ),
        Class::Set { .. } | Class::Reset { .. } | Class::DiscardAll => say(
            "session setting",
            "primary",
            "the server judges it; outside of transactions it then goes with the session to \
             whatever server serves it",
        ),
        Class::Deallocate { .. } => say(
            "prepared statements",
            "depends",
            "Breccia keeps prepared statements itself and answers; what it does not know goes to \
             the primary",
        ),
        Class::Pin(why) => Said {
            class: format!("pins its session ({why})"),
            target: "primary",
            reason: "it leaves something on its connection that cannot be moved, so the session \
                     stays on the primary from then on"
                .to_owned(),
        },
        Class::OwnMisplaced => say(
            "Breccia's own, where it cannot be",
            "depends",
            "Breccia refuses it: it must be a text of its own, without LOCAL",
        ),
        Class::OwnSet { .. } | Class::OwnShow { .. } | Class::OwnReset { .. } => say(
            "Breccia's own",
            "depends",
            "Breccia itself answers; no server sees it",
        ),
        // Told by `said` itself; a doubt goes to the primary.
        Class::Empty | Class::Read | Class::Primary(_) | Class::Ddl => say(
            "statement",
            "primary",
            "it is not known to belong elsewhere",
        ),
    }
}

/// The short word of a reason, told at length.
fn words(why: &str) -> &'static str {
    match why {
        "catalogue" => "it may be a read, but without the catalogue that cannot be proven",
        "write" => "it writes, or may",
        "function" => {
            "it calls a function that is not known to be harmless on a replica: volatile, in \
             another language than sql or plpgsql, with a body that is not proven, or unknown"
        }
        "relation" => {
            "it reads from something that only the primary tells: a sequence, an unlogged or \
             foreign table, a view over such or over the server's own state, a table whose \
             policies, indexes, key or checks call a function that is not proven, or an unknown \
             name"
        }
        "operator" | "operator-class" => {
            "an operator in it, or one that the server may choose, calls a function that is not \
             known to be harmless"
        }
        "cast" | "type" => {
            "a type in it is unknown, or a cast calls a function that is not known to be harmless"
        }
        "domain" => {
            "the database has a domain whose check calls a function that is not known to be \
             harmless, and the server may hold any value against it"
        }
        "locks" => "it locks rows or tables",
        "into" => "it makes a table",
        "multi" => "it is more than one statement in one text",
        "too-long" | "too-deep" => "it is too long or too deeply nested to be proven",
        "unparsed" => "it could not be read as a query, so nothing of it is proven",
        "do" => "it runs code",
        "hint" => "a comment says `breccia: primary`",
        "refused" => "a replica refused it",
        _ => "it is nothing that is known to be a read",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = r#"
        [store.a]
        type = "postgresql"
        host = "127.0.0.1"
        port = 1
        user = "u"
        password = "p"
        [store.b]
        type = "postgresql"
        host = "127.0.0.1"
        port = 2
        user = "u"
        password = "p"
        [store.db]
        type = "sql-read-replica"
        primary = "a"
        replicas = ["b"]
    "#;

    fn offline(statement: &str) -> String {
        let plan = breccia_config::parse(CONFIG, "test", Path::new("/tmp"), &|_| None);
        let plan = plan.expect("a plan").0;
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
        explain(&plan, &arguments, statement).expect("an explanation")
    }

    #[test]
    fn without_a_catalogue_each_kind_still_has_its_target() {
        let check = |statement: &str, parts: &[&str]| {
            let text = offline(statement);
            for part in parts {
                assert!(text.contains(part), "{statement}: no {part:?} in {text}");
            }
        };
        check(
            "SELECT 1",
            &[
                "(catalogue)\n",
                "target     primary",
                "not known: ",
                "--offline",
            ],
        );
        check(
            "SELECT 1",
            &["database   shop", "transactions = \"primary\""],
        );
        check(
            "INSERT INTO t VALUES (1)",
            &["not proven (write)", "target     primary"],
        );
        check("BEGIN", &["class      begin", "target     primary"]);
        check("BEGIN READ ONLY", &["target     depends", "on one replica"]);
        check("CREATE TABLE t (a int)", &["class      ddl", "read anew"]);
        check("SHOW breccia.token", &["no server sees it"]);
        check("SELECT 1; SELECT 2", &["(multi)", "as a whole"]);
        check("LISTEN x", &["pins its session", "target     primary"]);
    }
}
