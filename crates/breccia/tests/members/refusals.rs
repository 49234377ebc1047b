//! A server that says it is a cluster and refuses what the test wants refused, at moments that a real
//! one cannot be brought to.
//!
//! Invariant: it keeps strings as Redis does, so what requests were applied in which order shows in
//! the replies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, Reply, RespClient, free_port};

/// What a test wants said to a request, instead of an answer, by the server of a number. A request
/// after ASKING begins with that.
type Refuse = Box<dyn FnMut(usize, &str) -> Option<String> + Send>;

struct Shared {
    refuse: Mutex<Refuse>,
    values: Mutex<BTreeMap<String, String>>,
    /// Requests on keys, as they came.
    heard: Mutex<Vec<String>>,
    described: String,
}

/// Servers with the same data; the first owns all slots.
struct Fake {
    ports: Vec<u16>,
    shared: Arc<Shared>,
}

impl Fake {
    fn start(
        count: usize,
        refuse: impl FnMut(usize, &str) -> Option<String> + Send + 'static,
    ) -> Result<Self> {
        Self::start_with(count, false, refuse)
    }

    /// The same; the others are replicas if so wished.
    fn start_with(
        count: usize,
        replicas: bool,
        refuse: impl FnMut(usize, &str) -> Option<String> + Send + 'static,
    ) -> Result<Self> {
        let listeners: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)))
            .collect::<Result<_, _>>()?;
        let ports: Vec<u16> = listeners
            .iter()
            .map(|it| Ok(it.local_addr()?.port()))
            .collect::<Result<_>>()?;
        let id = |number: usize| format!("{number:040}");
        let line = |(number, port): (usize, &u16)| {
            let role = match number {
                0 => "master - 0 0 1 connected 0-16383".to_owned(),
                _ if replicas => format!("slave {} 0 0 1 connected", id(0)),
                _ => format!("master - 0 0 {} connected", number + 1),
            };
            format!("{} 127.0.0.1:{port}@{port} {role}\n", id(number))
        };
        let shared = Arc::new(Shared {
            refuse: Mutex::new(Box::new(refuse)),
            values: Mutex::default(),
            heard: Mutex::default(),
            described: ports.iter().enumerate().map(line).collect(),
        });
        for (number, listener) in listeners.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || serve(&shared, number, stream));
                }
            });
        }
        Ok(Self { ports, shared })
    }

    fn gateway(&self, port: u16, keys: &str) -> Result<Breccia> {
        Breccia::start(&format!(
            "workers = 1\n[store.c]\ntype = \"redis-cluster\"\nurls = [\"redis://127.0.0.1:{}\"]\n\
             {keys}\n[listener.l]\nprotocol = \"redis\"\nbind = \"127.0.0.1:{port}\"\nstore = \"c\"\n",
            self.ports[0]
        ))
    }

    fn heard(&self, start: &str) -> usize {
        let heard = self.shared.heard.lock();
        let heard = heard.unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|it| it.starts_with(start)).count()
    }
}

fn serve(shared: &Shared, number: usize, stream: TcpStream) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    let mut asking = false;
    loop {
        line.clear();
        input.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = vec![line.trim_end().to_owned()];
        if let Some(count) = line.strip_prefix('*') {
            words.clear();
            for _ in 0..count.trim_end().parse::<usize>().ok()? {
                let mut size = String::new();
                input.read_line(&mut size).ok()?;
                let size = size.trim_end().strip_prefix('$')?.parse::<usize>().ok()?;
                let mut word = vec![0; size + 2];
                input.read_exact(&mut word).ok()?;
                word.truncate(size);
                words.push(String::from_utf8(word).ok()?);
            }
        }
        let reply = answer(shared, (number, asking), &words)?;
        asking = words == ["ASKING"];
        out.write_all(reply.as_bytes()).ok()?;
    }
}

/// `None`: the connection is closed instead.
fn answer(shared: &Shared, (number, asking): (usize, bool), words: &[String]) -> Option<String> {
    let request = words.join(" ");
    match words.first()?.as_str() {
        "PING" => return Some("+PONG\r\n".to_owned()),
        "CLUSTER" => {
            let described = &shared.described;
            let id = format!("{number:040} ");
            let own: String = described
                .split_inclusive('\n')
                .map(|line| {
                    if line.starts_with(&id) {
                        line.replace(" master", " myself,master")
                            .replace(" slave", " myself,slave")
                    } else {
                        line.to_owned()
                    }
                })
                .collect();
            return Some(format!("${}\r\n{own}\r\n", own.len()));
        }
        "MULTI" | "SELECT" | "ASKING" | "READONLY" => return Some("+OK\r\n".to_owned()),
        "EXEC" => return Some("*0\r\n".to_owned()),
        "CLIENT" => return Some(":1\r\n".to_owned()),
        _ => {}
    }
    let mut refuse = shared.refuse.lock().ok()?;
    shared.heard.lock().ok()?.push(request.clone());
    let said = if asking {
        format!("ASKING {request}")
    } else {
        request
    };
    if let Some(refusal) = refuse(number, &said) {
        return (refusal != "close").then(|| format!("{refusal}\r\n"));
    }
    let mut values = shared.values.lock().ok()?;
    Some(match words.first()?.as_str() {
        "SET" | "MSET" => {
            for pair in words[1..].chunks(2) {
                values.insert(pair[0].clone(), pair[1].clone());
            }
            "+OK\r\n".to_owned()
        }
        "GET" => match values.get(&words[1]) {
            Some(value) => format!("${}\r\n{value}\r\n", value.len()),
            None => "$-1\r\n".to_owned(),
        },
        _ => "-ERR unknown\r\n".to_owned(),
    })
}

fn client(port: u16) -> Result<RespClient> {
    let mut client = RespClient::connect(&format!("127.0.0.1:{port}"))?;
    client.set_patience(Duration::from_secs(20))?;
    Ok(client)
}

/// Refuses the first requests that begin so.
fn first(
    start: &'static str,
    times: usize,
    text: &'static str,
) -> impl FnMut(usize, &str) -> Option<String> {
    let mut left = times;
    move |_, request| {
        let refused = left > 0 && request.starts_with(start);
        left -= usize::from(refused);
        refused.then(|| text.to_owned())
    }
}

fn pipelined(client: &mut RespClient, requests: &[&str]) -> Result<Vec<String>> {
    let replies = client.pipeline(requests)?;
    let replies = replies.iter().map(|it| String::from_utf8_lossy(it));
    Ok(replies
        .map(|it| it.trim_end().replace("\r\n", " "))
        .collect())
}

#[test]
fn a_request_that_was_put_off_is_not_applied_after_a_later_one() -> Result<()> {
    for text in [
        "-CLUSTERDOWN The cluster is down",
        "-TRYAGAIN Multiple keys request during rehashing of slot",
        "-MOVED 7629 127.0.0.9:9",
    ] {
        let fake = Fake::start(1, first("SET k 1", 1, text))?;
        let port = free_port()?;
        let _gateway = fake.gateway(port, "")?;
        let mut client = client(port)?;
        let replies = pipelined(&mut client, &["SET k 1", "SET k 2", "GET k"])?;
        ensure!(replies[0].contains("not applied"), "{text}: {replies:?}");
        ensure!(replies[1..] == ["+OK", "$1 2"], "{text}: {replies:?}");
        ensure!(client.words("GET k")? == b"$1\r\n2\r\n");
        ensure!(fake.heard("SET k 1") == 1);
    }
    Ok(())
}

#[test]
fn several_keys_that_were_put_off_are_not_written_after_one_was_read() -> Result<()> {
    let text = "-TRYAGAIN Multiple keys request during rehashing of slot";
    let fake = Fake::start(1, first("MSET {k}a", 1, text))?;
    let port = free_port()?;
    let _gateway = fake.gateway(port, "")?;
    let mut client = client(port)?;
    let requests = [
        "SET {k}a v1",
        "MSET {k}a v2 {k}b v2 other v2",
        "GET {k}a",
        "GET other",
    ];
    let replies = pipelined(&mut client, &requests)?;
    ensure!(replies[1].contains("not applied on"), "{replies:?}");
    ensure!(replies[2..] == ["$2 v1", "$2 v2"], "{replies:?}");
    ensure!(client.words("GET {k}a")? == b"$2\r\nv1\r\n");
    Ok(())
}

#[test]
fn requests_that_are_all_refused_are_applied_in_their_order() -> Result<()> {
    let fake = Fake::start(1, first("SET", 7, "-CLUSTERDOWN The cluster is down"))?;
    let port = free_port()?;
    let _gateway = fake.gateway(port, "")?;
    let mut client = client(port)?;
    let requests = ["SET k 1", "SET k 2", "SET k 3", "SET x{k} 4", "SET k 5"];
    let replies = pipelined(&mut client, &requests)?;
    ensure!(replies == ["+OK"; 5], "{replies:?}");
    ensure!(client.words("GET k")? == b"$1\r\n5\r\n");
    // What lies elsewhere does not matter, nor do reads among each other.
    let fake = Fake::start(1, first("GET k", 1, "-CLUSTERDOWN The cluster is down"))?;
    let port = free_port()?;
    let _gateway = fake.gateway(port, "")?;
    let mut client = self::client(port)?;
    let replies = pipelined(&mut client, &["GET k", "GET k", "SET elsewhere 1"])?;
    ensure!(replies == ["$-1", "$-1", "+OK"], "{replies:?}");
    Ok(())
}

#[test]
fn what_a_script_says_is_its_answer_and_it_runs_once() -> Result<()> {
    for text in [
        "-TRYAGAIN later",
        "-CLUSTERDOWN Hash slot not served",
        "-MOVED 5 127.0.0.1:1",
        "-LOADING Redis is loading the dataset in memory",
    ] {
        let fake = Fake::start(1, move |_, request| {
            let script = request.starts_with("EVAL") || request.starts_with("FCALL");
            script.then(|| text.to_owned())
        })?;
        let port = free_port()?;
        let _gateway = fake.gateway(port, "")?;
        let mut client = client(port)?;
        for request in ["EVAL script 1 cnt", "FCALL f 1 cnt"] {
            let reply = client.words(request)?;
            let reply = String::from_utf8_lossy(&reply);
            ensure!(reply.trim_end() == text, "{request}: {reply}");
        }
        ensure!(
            fake.heard("EVAL") == 1 && fake.heard("FCALL") == 1,
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn a_client_that_would_block_hears_of_a_cluster_that_is_down() -> Result<()> {
    let down = "-CLUSTERDOWN The cluster is down";
    let fake = Fake::start(1, first("BLPOP", usize::MAX, down))?;
    let port = free_port()?;
    let _gateway = fake.gateway(port, "")?;
    let mut client = client(port)?;
    let begun = Instant::now();
    let reply = client.reply("BLPOP l 0")?;
    let text = reply.error().context("an error")?;
    ensure!(text.contains("not applied"), "{text}");
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(10), "{took:?}");
    Ok(())
}

#[test]
fn a_server_that_is_named_by_its_port_alone_is_found() -> Result<()> {
    for host in ["", "?"] {
        let second = Arc::new(Mutex::new(0));
        let named = Arc::clone(&second);
        let fake = Fake::start(2, move |number, request| {
            let port = *named.lock().ok()?;
            (number == 0 && request.starts_with("GET")).then(|| format!("-ASK 7629 {host}:{port}"))
        })?;
        *second.lock().unwrap_or_else(PoisonError::into_inner) = fake.ports[1];
        let port = free_port()?;
        let _gateway = fake.gateway(port, "")?;
        let mut client = client(port)?;
        ensure!(client.words("SET k v")? == b"+OK\r\n");
        let reply = client.reply("GET k")?;
        ensure!(reply == Reply::parse(b"$1\r\nv\r\n")?, "{host}: {reply:?}");
    }
    Ok(())
}

#[test]
fn what_a_dying_replica_leaves_unanswered_is_read_from_the_primary() -> Result<()> {
    let fake = Fake::start_with(2, true, |number, request| {
        (number == 1 && request.starts_with("GET k")).then(|| "close".to_owned())
    })?;
    let port = free_port()?;
    let _gateway = fake.gateway(port, "read-from-replicas = true")?;
    let mut client = client(port)?;
    ensure!(client.words("SET k v")? == b"+OK\r\n");
    for _ in 0..20 {
        let reply = client.reply("GET k")?;
        ensure!(reply == Reply::parse(b"$1\r\nv\r\n")?, "{reply:?}");
    }
    ensure!(fake.heard("GET k") > 20, "the replica was not asked");
    Ok(())
}

#[test]
fn several_keys_wait_until_their_slot_has_moved() -> Result<()> {
    let second = Arc::new(Mutex::new((Vec::new(), None)));
    let named = Arc::clone(&second);
    let fake = Fake::start(2, move |number, request| {
        let (ports, until): &mut (Vec<u16>, Option<Instant>) = &mut *named.lock().ok()?;
        let until = *until.get_or_insert_with(|| Instant::now() + Duration::from_millis(600));
        let text = match number {
            _ if !request.contains("MSET") => return None,
            0 => format!("-ASK 7629 127.0.0.1:{}", ports[1]),
            _ if !request.starts_with("ASKING") => format!("-MOVED 7629 127.0.0.1:{}", ports[0]),
            _ if Instant::now() < until => {
                "-TRYAGAIN Multiple keys request during rehashing of slot".to_owned()
            }
            _ => return None,
        };
        Some(text)
    })?;
    second.lock().unwrap_or_else(PoisonError::into_inner).0 = fake.ports.clone();
    let port = free_port()?;
    let _gateway = fake.gateway(port, "")?;
    let mut client = client(port)?;
    let begun = Instant::now();
    let reply = client.reply("MSET {k}a 1 {k}b 2")?;
    ensure!(
        reply == Reply::parse(b"+OK\r\n")?,
        "{:?}: {reply:?}",
        begun.elapsed()
    );
    Ok(())
}
