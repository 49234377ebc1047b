//! `breccia status`: what a running gateway does, as a table or as JSON.
//!
//! Not the gateway: it asks the admin listener. Invariant: what is not a terminal gets JSON.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use breccia_core::address::Address;
use breccia_net::stream;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::cli::StatusArguments;
use crate::loading;
use crate::trouble::{Trouble, print};

const LIMIT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
const TOKEN_VARIABLE: &str = "BRECCIA_ADMIN_TOKEN";

pub(crate) fn run(arguments: &StatusArguments) -> Result<(), Trouble> {
    let (address, host) = address(&arguments.admin).ok_or_else(|| {
        let line = format!(
            "--admin: '{}' is not of the form http://HOST:PORT",
            arguments.admin
        );
        Trouble::refused(line)
    })?;
    let token = token(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::failed)?;
    let asking = async { tokio::time::timeout(LIMIT, ask(&address, &host, token)).await };
    let answer = runtime.block_on(asking);
    runtime.shutdown_background();
    let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not answer")));
    let place = &arguments.admin;
    let answer = answer.map_err(|error| {
        Trouble::failed(format!(
            "{place} cannot be asked: {error}; --admin http://HOST:PORT names the `bind` of [admin]"
        ))
    })?;
    if arguments.json || !std::io::stdout().is_terminal() {
        print(&format!("{answer:#}\n"));
    } else {
        print(&table(&answer));
    }
    Ok(())
}

fn address(url: &str) -> Option<(Address, String)> {
    let uri: Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address = Address::tcp(host, uri.port_u16().unwrap_or(80)).ok()?;
    Some((address, uri.authority()?.as_str().to_owned()))
}

fn token(arguments: &StatusArguments) -> Result<Option<String>, Trouble> {
    let Some(path) = &arguments.token_file else {
        return Ok(loading::environment(TOKEN_VARIABLE));
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) => {
            let reason = breccia_net::error::plain_reason(&error);
            Err(Trouble::refused(format!(
                "{} cannot be read ({reason})",
                path.display()
            )))
        }
    }
}

async fn ask(address: &Address, host: &str, token: Option<String>) -> anyhow::Result<Value> {
    let stream = stream::connect(address, None, LIMIT).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get("/status").header(HOST, host);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body)?),
        StatusCode::UNAUTHORIZED => {
            anyhow::bail!("it wants admin.token; set {TOKEN_VARIABLE} or give --token-file")
        }
        status => anyhow::bail!("it answers {status}"),
    }
}

/// The answer for people.
fn table(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "Breccia {}, {}, up {} s, {} workers\n",
        shown(status, "version"),
        shown(status, "phase"),
        shown(status, "uptime_seconds"),
        shown(status, "workers")
    );
    last_reload(&mut out, status.get("last_reload"));
    let keys = [
        "name",
        "protocol",
        "bind",
        "store",
        "connections",
        "requests_per_second",
    ];
    let heads = [
        "LISTENER",
        "PROTOCOL",
        "BIND",
        "STORE",
        "CLIENTS",
        "REQUESTS/S",
    ];
    rows(&mut out, &heads, status.get("listeners"), |row| {
        keys.iter().map(|key| shown(row, key)).collect()
    });
    let heads = ["STORE", "TYPE", "WHERE", "STATE", "REQUESTS/S"];
    rows(&mut out, &heads, status.get("stores"), |row| {
        let state = state(row);
        vec![
            shown(row, "name"),
            shown(row, "type"),
            shown(row, "location"),
            state,
            shown(row, "requests_per_second"),
        ]
    });
    clusters(&mut out, status.get("clusters"));
    out
}

/// How the last reload ended, if there was one, and what it left to do.
fn last_reload(out: &mut String, last: Option<&Value>) {
    let Some(last) = last.filter(|last| last.is_object()) else {
        return;
    };
    let listed = |key: &str| {
        let items = last.get(key).and_then(Value::as_array);
        let items = items.into_iter().flatten().filter_map(Value::as_str);
        items.map(str::to_owned).collect::<Vec<_>>()
    };
    let (ago, outcome) = (shown(last, "seconds_ago"), shown(last, "outcome"));
    let more = match outcome.as_str() {
        "refused" => ", nothing was changed",
        _ => "",
    };
    let _ = writeln!(out, "reload {ago} s ago: {}{more}", outcome.to_uppercase());
    for fault in listed("faults") {
        let _ = writeln!(out, "  {fault}");
    }
    let waiting = listed("needs_restart");
    if !waiting.is_empty() {
        let _ = writeln!(out, "  needs a restart: {}", waiting.join(" "));
    }
    out.push('\n');
}

fn shown(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// How a store is.
fn state(row: &Value) -> String {
    let layout = row.get("layout").map(|layout| {
        format!(
            "layout {}, epoch {}",
            shown(layout, "digest"),
            shown(layout, "epoch")
        )
    });
    let refused = row.get("marker").and_then(Value::as_str);
    let refused = refused.filter(|marker| *marker != "right");
    match row.get("up") {
        Some(Value::Bool(true)) => match refused {
            Some(why) => format!("NOT USED ({why})"),
            None => "up".to_owned(),
        },
        Some(_) => {
            format!(
                "DOWN {} s ({})",
                shown(row, "down_seconds"),
                shown(row, "reason")
            )
        }
        None => layout.unwrap_or_else(|| "-".to_owned()),
    }
}

/// The servers of every cluster, if there is one, and what is odd.
fn clusters(out: &mut String, clusters: Option<&Value>) {
    let clusters = clusters.and_then(Value::as_array);
    let Some(clusters) = clusters.filter(|clusters| !clusters.is_empty()) else {
        return;
    };
    let heads = ["CLUSTER", "SERVER", "ROLE", "LAG", "CONNECTIONS"];
    let lines: Vec<Value> = clusters.iter().flat_map(servers).collect();
    rows(out, &heads, Some(&Value::Array(lines)), |row| {
        let cells = row.as_array().into_iter().flatten();
        let cells = cells.map(|cell| cell.as_str().unwrap_or("-").to_owned());
        cells.collect()
    });
}

/// The rows of one cluster.
fn servers(cluster: &Value) -> Vec<Value> {
    let each = |key: &str| {
        let listed = cluster.get(key).and_then(Value::as_array);
        listed.cloned().unwrap_or_default()
    };
    let pools = each("pools");
    let connections = |server: &str| {
        let own = pools.iter().filter(|pool| shown(pool, "server") == server);
        let sum = own.fold((0, 0), |(idle, open), pool| {
            let count = |key| pool.get(key).and_then(Value::as_u64).unwrap_or_default();
            (idle + count("idle"), open + count("open"))
        });
        format!("{} ({} idle)", sum.1, sum.0)
    };
    let name = shown(cluster, "name");
    let row = |server: &str, role: String, lag: String| {
        Value::from(vec![
            name.clone(),
            server.to_owned(),
            role,
            lag,
            connections(server),
        ])
    };
    let mut out = Vec::new();
    if let Some(primary) = cluster.get("primary").and_then(Value::as_str) {
        let held = each("paused")
            .into_iter()
            .any(|it| it == primary || it == *name);
        let paused = if held { ", PAUSED" } else { "" };
        let timeline = cluster.get("timeline").and_then(Value::as_u64);
        let timeline = timeline.map_or_else(String::new, |it| format!(", timeline {it}"));
        let unasked = cluster
            .get("primary_cannot_be_asked")
            .and_then(Value::as_str);
        let unasked = unasked.map_or_else(String::new, |why| format!(", CANNOT BE ASKED ({why})"));
        let shut = cluster.get("primary_read_only").and_then(Value::as_bool);
        let shut = if shut == Some(true) {
            ", READ ONLY"
        } else {
            ""
        };
        let role = format!("primary{timeline}{paused}{shut}{unasked}");
        out.push(row(primary, role, "-".to_owned()));
    } else {
        let role = format!("NO PRIMARY ({})", shown(cluster, "no_primary"));
        out.push(row("-", role, "-".to_owned()));
    }
    for replica in each("replicas") {
        // GTIDs do not count bytes.
        let bytes = replica.get("lag_bytes").and_then(Value::as_u64);
        let bytes = bytes.map_or_else(String::new, |it| format!(", {it} bytes"));
        let lag = format!("{} s{bytes}", shown(&replica, "lag_seconds"));
        out.push(row(&shown(&replica, "name"), "replica".to_owned(), lag));
    }
    for aside in each("set_aside") {
        let role = format!("NOT USED ({})", shown(&aside, "why"));
        out.push(row(&shown(&aside, "name"), role, "-".to_owned()));
    }
    out
}

/// Aligned columns.
fn rows(
    out: &mut String,
    heads: &[&str],
    values: Option<&Value>,
    row: impl Fn(&Value) -> Vec<String>,
) {
    let mut lines = vec![
        heads
            .iter()
            .map(|head| (*head).to_owned())
            .collect::<Vec<_>>(),
    ];
    lines.extend(
        values
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(row),
    );
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_urls_are_http_with_a_host() {
        let check = |url: &str, expected: Option<&str>| {
            let found = address(url).map(|(address, _)| address.to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:9180", Some("127.0.0.1:9180"));
        check("http://[::1]:9180/", Some("[::1]:9180"));
        check("http://gateway", Some("gateway:80"));
        check("https://gateway", None);
        check("127.0.0.1:9180", None);
        check("", None);
    }

    #[test]
    fn tables_are_aligned_and_name_what_is_down() {
        let status = serde_json::json!({
            "version": "1", "phase": "running", "uptime_seconds": 5, "workers": 2,
            "listeners": [{ "name": "cache", "connections": 3 }],
            "stores": [
                { "name": "a-long-name", "type": "redis", "up": false, "down_seconds": 4,
                  "reason": "connection refused", "location": "127.0.0.1:1/0" },
                { "name": "b", "type": "memory" },
                { "name": "c", "type": "redis", "up": true, "marker": "right" },
                { "name": "d", "type": "redis", "up": true, "marker": "it has none" },
            ],
        });
        let text = table(&status);
        assert!(text.contains("DOWN 4 s (connection refused)"), "{text}");
        assert!(text.contains("\nb            memory  -"), "{text}");
        assert!(text.contains("NOT USED (it has none)"), "{text}");
        assert!(!text.contains("CLUSTER"), "{text}");
        assert!(!text.contains("reload"), "{text}");
    }

    #[test]
    fn a_refused_reload_is_shown_with_its_faults() {
        let check = |last: Value, parts: &[&str]| {
            let text = table(&serde_json::json!({ "last_reload": last }));
            for part in parts {
                assert!(text.contains(part), "'{part}' is missing in\n{text}");
            }
        };
        let refused = serde_json::json!({
            "outcome": "refused", "seconds_ago": 3, "faults": ["breccia.toml:1:1: what is this"],
        });
        check(
            refused,
            &[
                "reload 3 s ago: REFUSED, nothing was changed",
                "  breccia.toml:1:1",
            ],
        );
        let applied = serde_json::json!({
            "outcome": "applied", "seconds_ago": 0, "needs_restart": ["workers", "store.a"],
        });
        check(
            applied,
            &[
                "reload 0 s ago: APPLIED\n",
                "needs a restart: workers store.a",
            ],
        );
    }

    #[test]
    fn clusters_show_their_servers_and_what_is_odd() {
        let status = serde_json::json!({
            "clusters": [
                { "name": "db", "primary": "a", "timeline": 2,
                  "replicas": [{ "name": "b", "lag_seconds": 0, "lag_bytes": 17 }],
                  "set_aside": [{ "name": "c", "why": "it is down: refused" }],
                  "pools": [{ "server": "a", "idle": 1, "open": 3 },
                            { "server": "a", "idle": 1, "open": 1 }] },
                { "name": "lost", "primary": null, "no_primary": "a is down" },
                { "name": "still", "primary": "d", "timeline": 3, "paused": ["still"] },
                { "name": "other", "primary": "e", "timeline": 3, "paused": ["f"] },
                { "name": "my", "primary": "g", "replicas": [{ "name": "h", "lag_seconds": 1 }] },
            ],
        });
        let text = table(&status);
        for part in [
            "db       a       primary, timeline 2             -            4 (2 idle)",
            "db       b       replica                         0 s, 17 bytes  0 (0 idle)",
            "NOT USED (it is down: refused)",
            "NO PRIMARY (a is down)",
            "still d primary, timeline 3, PAUSED",
            "other e primary, timeline 3 -",
            "my g primary - 0 (0 idle)",
            "my h replica 1 s 0 (0 idle)",
        ] {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words(&text).contains(&words(part)), "{part}: {text}");
        }
    }
}
