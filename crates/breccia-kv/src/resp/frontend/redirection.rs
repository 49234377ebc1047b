//! What a server of a cluster says instead of an answer, told from answers.
//!
//! Not what becomes of the request. Invariant: what code on the server may say as an answer of its
//! own (scripts, functions, modules) is an answer, unless it is what Redis itself says of the key.

use breccia_core::address::Address;

use super::super::cluster::{Cluster, SLOTS};

/// The server that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    At(Address),
    /// The same host as who says it, with another port.
    Beside(u16),
    /// A host whose name is not known to who says it, with this port.
    Port(u16),
    Unclear,
}

impl Target {
    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok()?;
        Some(match host {
            "" => Self::Beside(port),
            "?" => Self::Port(port),
            _ => Address::tcp(host, port).map_or(Self::Unclear, Self::At),
        })
    }

    /// The number of the server, said by one at `sayer`.
    pub(super) fn number(&self, cluster: &Cluster, sayer: Option<&Address>) -> Option<u16> {
        match self {
            Self::At(address) => cluster.number_of(address),
            Self::Beside(port) => cluster.number_of(&Address::tcp(sayer?.host()?, *port).ok()?),
            Self::Port(port) => {
                let servers = (0..).map_while(|number| cluster.server(number));
                let mut those = servers.filter(
                    |server| matches!(&server.address, Address::Tcp { port: its, .. } if its == port),
                );
                let found = those.next()?.number;
                // Two of them: it is not known which one is meant.
                those.next().is_none().then_some(found)
            }
            Self::Unclear => None,
        }
    }
}

/// What a server says instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirection {
    /// The slot is another server's.
    Moved(u16, Target),
    /// The slot is on its way, and the key is with another server already.
    Ask(u16, Target),
    /// Nobody can answer at present.
    Later,
}

/// What Redis says when nobody can answer, and nothing else.
const EXACT_LATER: [&str; 6] = [
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN The cluster is down and only accepts read commands",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
];

impl Redirection {
    /// `None`: it is an answer.
    pub(super) fn read(reply: &[u8]) -> Option<Self> {
        let text = text_of(reply)?;
        match text.split(' ').next()? {
            // What a script met within itself may have come after writes.
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN"
                if !text.contains(" script: ") =>
            {
                Some(Self::Later)
            }
            _ => led_elsewhere(text),
        }
    }

    /// The same, of what Redis says word by word.
    pub(super) fn read_exact(reply: &[u8]) -> Option<Self> {
        let text = text_of(reply)?;
        if EXACT_LATER.contains(&text) {
            return Some(Self::Later);
        }
        led_elsewhere(text).filter(|_| text.split(' ').count() == 3)
    }

    /// The same for a request that runs code on the server, which may say what it likes: only what
    /// leads elsewhere for the slot of the request's own keys is no answer.
    pub(super) fn read_of_code(reply: &[u8], slot: Option<u16>) -> Option<Self> {
        Self::read_exact(reply).filter(|said| match said {
            Self::Moved(other, _) | Self::Ask(other, _) => Some(*other) == slot,
            Self::Later => false,
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Moved(..) => "moved",
            Self::Ask(..) => "ask",
            Self::Later => "later",
        }
    }

    /// Notes what a server, at `sayer`, says of the cluster.
    pub(super) fn note(&self, cluster: &Cluster, sayer: Option<&Address>) {
        match self {
            Self::Moved(slot, to) => match to.number(cluster, sayer) {
                Some(number) => cluster.hint(*slot, number),
                None => cluster.doubt(),
            },
            Self::Ask(..) => {}
            Self::Later => cluster.doubt(),
        }
    }
}

fn text_of(reply: &[u8]) -> Option<&str> {
    let line = reply.strip_prefix(b"-")?;
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    std::str::from_utf8(line).ok()
}

fn led_elsewhere(text: &str) -> Option<Redirection> {
    let mut words = text.split(' ');
    let code = words.next()?;
    let slot = words.next()?.parse().ok()?;
    let target = Target::read(words.next()?.trim_end())?;
    if usize::from(slot) >= SLOTS {
        return None;
    }
    match code {
        "MOVED" => Some(Redirection::Moved(slot, target)),
        "ASK" => Some(Redirection::Ask(slot, target)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Target {
        Target::At(Address::tcp(host, port).unwrap())
    }

    #[test]
    fn redirections_are_told_from_answers() {
        let check = |reply: &str, expected: Option<Redirection>| {
            assert_eq!(Redirection::read(reply.as_bytes()), expected, "{reply}");
        };
        let moved = |target| Some(Redirection::Moved(77, target));
        check("-MOVED 77 10.0.0.1:7001\r\n", moved(at("10.0.0.1", 7001)));
        check("-MOVED 77 ::1:7001\r\n", moved(at("::1", 7001)));
        check("-MOVED 77 :7001\r\n", moved(Target::Beside(7001)));
        check("-MOVED 77 ?:7001\r\n", moved(Target::Port(7001)));
        check("-ASK 5 h:1\r\n", Some(Redirection::Ask(5, at("h", 1))));
        check(
            "-ASK 5 :1\r\n",
            Some(Redirection::Ask(5, Target::Beside(1))),
        );
        for later in EXACT_LATER {
            check(&format!("-{later}\r\n"), Some(Redirection::Later));
        }
        check(
            "-CLUSTERDOWN The cluster is down script: 1, on @user_script:1.\r\n",
            None,
        );
        check("-MOVED\r\n", None);
        check("-MOVED 16384 h:1\r\n", None);
        check("-ERR MOVED 77 h:1\r\n", None);
        check("+MOVED 77 h:1\r\n", None);
    }

    #[test]
    fn what_a_script_says_is_an_answer_unless_redis_says_it_of_its_key() {
        let check = |reply: &str, expected: Option<Redirection>| {
            let read = Redirection::read_of_code(reply.as_bytes(), Some(77));
            assert_eq!(read, expected, "{reply}");
        };
        check(
            "-MOVED 77 h:1\r\n",
            Some(Redirection::Moved(77, at("h", 1))),
        );
        check("-ASK 77 h:1\r\n", Some(Redirection::Ask(77, at("h", 1))));
        check("-MOVED 5 h:1\r\n", None);
        check("-MOVED 77 h:1 of mine\r\n", None);
        check("-TRYAGAIN later\r\n", None);
        for later in EXACT_LATER {
            check(&format!("-{later}\r\n"), None);
        }
        assert_eq!(Redirection::read_of_code(b"-MOVED 77 h:1\r\n", None), None);
        assert_eq!(Redirection::read_exact(b"-TRYAGAIN later\r\n"), None);
        let exact = Redirection::read_exact(b"-CLUSTERDOWN The cluster is down\r\n");
        assert_eq!(exact, Some(Redirection::Later));
    }

    #[test]
    fn a_server_is_found_without_its_host() {
        use super::super::super::cluster::Server;
        let cluster = crate::resp::cluster::tests::known(&["a:1", "b:2", "c:2"]);
        let number = |target: Target, sayer: &str| {
            let sayer: Address = sayer.parse().unwrap();
            let number = target.number(&cluster, Some(&sayer))?;
            cluster
                .server(number)
                .as_deref()
                .map(|it: &Server| it.address.to_string())
        };
        assert_eq!(number(Target::Beside(2), "c:7").as_deref(), Some("c:2"));
        assert_eq!(number(Target::Beside(3), "c:7"), None);
        assert_eq!(number(Target::Port(1), "c:7").as_deref(), Some("a:1"));
        assert_eq!(number(Target::Port(2), "c:7"), None);
    }
}
