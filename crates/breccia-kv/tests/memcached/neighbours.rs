//! Retrievals of one key each that stand next to each other.
//!
//! Invariant: what a client reads is what it would read if each had gone alone; only what the
//! server reads differs.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use breccia_kv::front::settings::ListenerSettings;
use breccia_kv::memcached::frontend::MemcachedBackend;
use breccia_testkit::Memcached;

use crate::dice::Dice;
use crate::front::{Front, session, topology_at};

/// A server that knows the keys that begin with `h`, breaks off at `broken`, and keeps what it was
/// asked.
fn server(lines: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || serve(stream, &lines));
        }
    });
    address
}

fn serve(mut stream: TcpStream, lines: &Mutex<Vec<String>>) {
    let reader = BufReader::new(stream.try_clone().unwrap());
    for line in reader.lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let mut reply = String::new();
        if words.next() == Some("mn") {
            reply.push_str("MN\r\n");
        } else {
            lines.lock().unwrap().push(line.clone());
            let mut last = "END";
            for key in words {
                if key == "broken" {
                    last = "SERVER_ERROR out of memory writing get response";
                    break;
                }
                if key.starts_with('h') {
                    write!(reply, "VALUE {key} 0 1\r\nv\r\n").unwrap();
                }
            }
            write!(reply, "{last}\r\n").unwrap();
        }
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

fn hit(key: &str) -> String {
    format!("VALUE {key} 0 1\r\nv\r\nEND\r\n")
}

#[test]
fn neighbouring_gets_leave_as_one_request_and_come_back_as_many() {
    let lines = Arc::default();
    let address = server(Arc::clone(&lines));
    let backend = MemcachedBackend::Forward(topology_at(&[address]));
    let front = Front::start(backend, ListenerSettings::default());
    // The first request makes the connection; what comes in one piece behind it can join.
    assert_eq!(session(&front.address, b"get h\r\n"), hit("h").as_bytes());
    lines.lock().unwrap().clear();
    let asked =
        b"get h1\r\nget m2\r\nget h1\r\ngets h4\r\ngets m5\r\nget h6 h7\r\nget h8\r\nget m\r\n";
    let expected = [
        hit("h1"),
        "END\r\n".into(),
        hit("h1"),
        hit("h4"),
        "END\r\n".into(),
        "VALUE h6 0 1\r\nv\r\nVALUE h7 0 1\r\nv\r\nEND\r\n".into(),
        hit("h8"),
        "END\r\n".into(),
    ];
    let told = String::from_utf8(session(&front.address, asked)).unwrap();
    assert_eq!(told, expected.concat());
    assert_eq!(
        *lines.lock().unwrap(),
        ["get h1 m2 h1", "gets h4 m5", "get h6 h7", "get h8 m"]
    );
    lines.lock().unwrap().clear();
    let asked = b"get h1\r\nget m2\r\nget broken\r\nget h4\r\n";
    let told = String::from_utf8(session(&front.address, asked)).unwrap();
    let error = "SERVER_ERROR out of memory writing get response\r\n";
    assert_eq!(told, [&hit("h1"), error, error, error].concat());
    let many = "get h1\r\n".repeat(16).into_bytes();
    lines.lock().unwrap().clear();
    assert_eq!(session(&front.address, &many).len(), 16 * hit("h1").len());
    assert_eq!(lines.lock().unwrap().len(), 1);
}

#[test]
fn pipelines_of_gets_read_as_they_do_from_the_server_itself() {
    let servers = Memcached::many(3).unwrap();
    let front = Front::over(&servers);
    let twin = Memcached::new().unwrap();
    let mut dice = Dice(20);
    let mut asked = String::new();
    for number in 0..40 {
        let value = "x".repeat(dice.roll(3000));
        let length = value.len();
        write!(asked, "set k{number} {number} 0 {length}\r\n{value}\r\n").unwrap();
    }
    for _ in 0..3000 {
        let key = dice.roll(60);
        match dice.roll(20) {
            0 => write!(asked, "set k{key} 0 0 1\r\ny\r\n"),
            1 => write!(asked, "delete k{key}\r\n"),
            2 => write!(asked, "get k{key} k{} k{key}\r\n", key + 1),
            3 => write!(asked, "gat 0 k{key}\r\n"),
            4 => write!(asked, "mg k{key} v\r\n"),
            _ => write!(asked, "get k{key}\r\n"),
        }
        .unwrap();
    }
    let through = exchange(&front.address, asked.as_bytes());
    let direct = exchange(&twin.address(), asked.as_bytes());
    assert!(through == direct, "the replies differ");
}

/// Sends while it reads, so that nobody waits for the other.
fn exchange(address: &str, input: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    let mut reading = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut out = Vec::new();
        reading.read_to_end(&mut out).map(|_| out)
    });
    (&stream).write_all(input).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    reader.join().unwrap().unwrap()
}
