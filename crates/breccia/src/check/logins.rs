//! Whether the roles that clients have upstream are let in by the servers: for `check --connect`.
//!
//! Not who is let in by Breccia. Invariant: only roles whose password the file holds are tried, each
//! once on each server, and nothing but a login is done, and an `auth-query` asked once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use breccia_config::{Plan, Secret, SqlPlan, StorePlan};
use breccia_sql::SqlError;
use breccia_sql::postgres::settings::literal;
use breccia_sql::postgres::upstream::Login;

use crate::registry;

/// Roles tried, the most.
const MOST: usize = 100;

/// A role on a server, and where the file speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tried {
    server: String,
    role: String,
    password: Option<Secret>,
    of: String,
}

/// Tries the roles of clients on the servers that answer; what is refused.
pub(super) async fn look(plan: &Plan, limit: Duration, answer: &BTreeSet<&str>) -> Vec<String> {
    let mut tasks = tokio::task::JoinSet::new();
    for (number, one) in tried(plan, answer).into_iter().take(MOST).enumerate() {
        let Some(store) = plan.stores.get(&one.server).cloned() else {
            continue;
        };
        tasks.spawn(async move {
            let asking = async {
                match &store {
                    StorePlan::Postgresql(server) => log_in(&one, server).await,
                    StorePlan::Mysql(server) => log_in_mysql(&one, server).await,
                    _ => Ok(()),
                }
            };
            // A server that is slow now has been reported.
            let asking = tokio::time::timeout(limit, asking);
            let why = asking.await.ok().and_then(Result::err);
            (number, why.map(|why| format!("{}: {why}", one.of)))
        });
    }
    let found: BTreeMap<usize, Option<String>> = tasks.join_all().await.into_iter().collect();
    found.into_values().flatten().collect()
}

/// Asks each `auth-query` for the role that asks it; what does not work.
pub(super) async fn questions(
    plan: &Plan,
    limit: Duration,
    answer: &BTreeSet<&str>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, listener) in &plan.listeners {
        let Some(question) = listener.sql.as_ref().and_then(|it| it.auth_query.as_ref()) else {
            continue;
        };
        // Rights are replicated: what one server answers to, all do.
        let asked = plan
            .served(listener)
            .into_iter()
            .find_map(|(server, store)| {
                let StorePlan::Postgresql(store) = store else {
                    return None;
                };
                answer.contains(server).then_some((server, store))
            });
        let Some((server, store)) = asked else {
            continue;
        };
        let asking = tokio::time::timeout(limit, ask(server, store, question));
        if let Ok(Err(why)) = asking.await {
            faults.push(format!("listener.{name}.auth-query: {why}"));
        }
    }
    faults
}

async fn ask(name: &str, server: &SqlPlan, question: &str) -> Result<(), String> {
    let Ok((endpoint, Some((role, credential)))) = registry::sql_endpoint(name, server) else {
        return Ok(());
    };
    let login = Login {
        role: role.clone(),
        credential,
        database: server.database.clone(),
        read_only: true,
    };
    let sql = question.replace("$1", &literal(&role));
    let told = async {
        let mut upstream = endpoint.open(&login).await?;
        endpoint.ask(&mut upstream, &sql).await
    };
    let database = &server.database;
    match told.await {
        Err(error @ SqlError::Question { .. }) => Err(format!(
            "{error}; it is asked as role {role:?} in database {database:?}, and needs its rights \
             there"
        )),
        Ok(rows) if rows.iter().any(|row| row.len() < 2) => Err(format!(
            "{name} answers with one column, and it must be two: a name and its verifier"
        )),
        _ => Ok(()),
    }
}

/// Who clients are on each server, where it is not who Breccia asks as, which was tried.
fn tried(plan: &Plan, answer: &BTreeSet<&str>) -> Vec<Tried> {
    let mut all: Vec<Tried> = Vec::new();
    let mut add = |one: Tried| {
        let same = |it: &Tried| it.server == one.server && it.role == one.role;
        if !all.iter().any(|it| same(it) && it.password == one.password) {
            all.push(one);
        }
    };
    for (name, listener) in &plan.listeners {
        if listener.sql.is_none() {
            continue;
        }
        for (server, store) in plan.served(listener) {
            let (StorePlan::Postgresql(store) | StorePlan::Mysql(store)) = store else {
                continue;
            };
            if !answer.contains(server) {
                continue;
            }
            let one = |role: &str, password: Option<&Secret>, of| Tried {
                server: server.to_owned(),
                role: role.to_owned(),
                password: password.cloned(),
                of,
            };
            if !store.user.is_empty() && store.monitor_user.is_some() {
                let of = format!("store.{server}.user");
                add(one(&store.user, store.password.as_ref(), of));
            }
            for user in &listener.users {
                let of = format!("listener.{name}.user {:?}", user.name);
                let sql = user.sql.as_ref();
                let upstream = sql.and_then(|sql| Some((sql.upstream_user.as_ref()?, sql)));
                if let Some((role, sql)) = upstream {
                    add(one(role, sql.upstream_password.as_ref(), of));
                } else if store.user.is_empty() && user.password.is_some() {
                    add(one(&user.name, user.password.as_ref(), of));
                }
            }
        }
    }
    all
}

async fn log_in(one: &Tried, server: &SqlPlan) -> Result<(), String> {
    let Ok((endpoint, _)) = registry::sql_endpoint(&one.server, server) else {
        return Ok(());
    };
    let login = Login {
        role: one.role.clone(),
        credential: registry::credential(one.password.as_ref()),
        database: server.database.clone(),
        read_only: false,
    };
    refusal(endpoint.open(&login).await.map(drop))
}

async fn log_in_mysql(one: &Tried, server: &SqlPlan) -> Result<(), String> {
    let Ok((endpoint, _)) = registry::mysql_endpoint(&one.server, server) else {
        return Ok(());
    };
    let credential = registry::mysql_credential(one.password.as_ref());
    let login = registry::mysql_login(&one.role, credential);
    refusal(endpoint.open(&login).await.map(drop))
}

/// What a login shows of the role itself.
fn refusal(outcome: Result<(), SqlError>) -> Result<(), String> {
    match outcome {
        // Whether a client may enter its own database is not known here.
        Err(SqlError::Refused { sqlstate, .. }) if !sqlstate.starts_with("28") => Ok(()),
        Err(
            error @ (SqlError::Refused { .. }
            | SqlError::Login { .. }
            | SqlError::Method { .. }
            | SqlError::Scram { .. }),
        ) => Err(error.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The roles tried, and what of the file each is of.
    fn roles(store: &str, user: &str) -> Vec<(String, String)> {
        let text = format!(
            "[store.a]\ntype = \"postgresql\"\nhost = \"h\"\n{store}\n[store.b]\n\
             type = \"postgresql\"\nhost = \"i\"\n{store}\n[store.db]\n\
             type = \"sql-read-replica\"\nprimary = \"a\"\nreplicas = [\"b\"]\n[listener.x]\n\
             protocol = \"postgresql\"\nbind = \"127.0.0.1:3\"\nstore = \"db\"\n\
             [[listener.x.user]]\nname = \"ann\"\n{user}\n"
        );
        let plan = breccia_config::parse(&text, "test", Path::new("/tmp"), &|_| None);
        let plan = plan.expect("a plan").0;
        let tried = tried(&plan, &BTreeSet::from(["b"]));
        assert!(tried.iter().all(|one| one.server == "b"), "{tried:?}");
        tried.into_iter().map(|one| (one.role, one.of)).collect()
    }

    #[test]
    fn roles_of_clients_are_tried_where_their_passwords_are_known() {
        let check = |store: &str, user: &str, wanted: &[(&str, &str)]| {
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(role, of)| ((*role).to_owned(), (*of).to_owned()))
                .collect();
            assert_eq!(roles(store, user), wanted, "{store} {user}");
        };
        let ann = "listener.x.user \"ann\"";
        check("user = \"u\"", "password = \"p\"", &[]);
        check("monitor-user = \"m\"", "password = \"p\"", &[("ann", ann)]);
        check(
            "user = \"u\"\nmonitor-user = \"m\"",
            "password = \"p\"",
            &[("u", "store.b.user")],
        );
        check(
            "user = \"u\"",
            "password = \"p\"\nupstream-user = \"v\"",
            &[("v", ann)],
        );
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let verifier = format!("scram-verifier = \"SCRAM-SHA-256$4096:c2FsdA==${key}:{key}\"");
        check("monitor-user = \"m\"", &verifier, &[]);
    }
}
