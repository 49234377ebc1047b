//! INFO: about Breccia itself, in the words that clients read of a Redis.
//!
//! Only the section of the key space asks the shards, and only when it is asked for by name: a
//! client that says INFO when it connects waits for no shard. Invariant: no number is invented; what
//! Breccia does not know is left out.

use std::fmt::Write as _;

use breccia_net::{clock, metrics, process};

use super::super::super::codec::request::Request;
use super::super::super::commands::REDIS_VERSION;
use super::super::super::encode::{self, RespVersion};
use super::super::dialogue::RespDialogue;
use super::super::pubsub::Kind;
use super::super::service::Backend;
use super::super::ticket::Convert;
use super::SessionAction;

const DAY: u64 = 86_400;

/// A section: its name, whether INFO alone shows it, and its lines.
type Section = (&'static str, bool, fn(&RespDialogue) -> String);

const SECTIONS: [Section; 9] = [
    ("Server", true, server),
    ("Clients", true, clients),
    ("Memory", true, memory),
    ("Persistence", true, |_| {
        "loading:0\r\nasync_loading:0\r\n".to_owned()
    }),
    ("Stats", true, stats),
    ("Replication", true, |_| {
        "role:master\r\nconnected_slaves:0\r\n".to_owned()
    }),
    ("CPU", true, processor),
    ("Commandstats", false, commands),
    ("Cluster", true, |_| "cluster_enabled:0\r\n".to_owned()),
];

/// Which sections a request asks for.
struct Wanted {
    plain: bool,
    all: bool,
    names: Vec<Vec<u8>>,
}

impl Wanted {
    fn new(request: Request<'_>) -> Self {
        let names: Vec<_> = request
            .arguments()
            .skip(1)
            .map(<[u8]>::to_ascii_lowercase)
            .collect();
        let has = |wanted: &[u8]| names.iter().any(|name| name == wanted);
        Self {
            plain: names.is_empty() || has(b"default"),
            all: has(b"all") || has(b"everything"),
            names,
        }
    }

    fn has(&self, section: &str, plain: bool) -> bool {
        let section = section.to_ascii_lowercase();
        let named = self.names.iter().any(|name| name == section.as_bytes());
        self.all || named || plain && self.plain
    }
}

impl RespDialogue {
    pub(super) fn info(&mut self, row: u16, request: Request<'_>) -> SessionAction {
        let wanted = Wanted::new(request);
        let mut text = String::new();
        for (name, plain, lines) in SECTIONS {
            if wanted.has(name, plain) {
                let gap = if text.is_empty() { "" } else { "\r\n" };
                // Writing to a String cannot fail.
                let _ = write!(text, "{gap}# {name}\r\n{}", lines(self));
            }
        }
        if wanted.has("Keyspace", false) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str("# Keyspace\r\n");
            if matches!(self.service.backend, Backend::Forward(_)) {
                let reply = WithKeyspace {
                    text,
                    database: self.session.database,
                    version: self.session.version,
                };
                return SessionAction::Count(Box::new(reply));
            }
        }
        self.long_text(row, &text);
        SessionAction::Done
    }
}

/// Puts the shards' number of keys behind the other sections.
struct WithKeyspace {
    text: String,
    database: u32,
    version: RespVersion,
}

impl Convert for WithKeyspace {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        let keys = super::super::super::codec::reply::integer(reply).unwrap_or(0);
        let mut text = self.text.clone();
        if keys > 0 {
            let database = self.database;
            let _ = write!(text, "db{database}:keys={keys}\r\n");
        }
        let mut out = Vec::with_capacity(text.len() + 32);
        match self.version {
            RespVersion::V2 => encode::bulk(&mut out, text.as_bytes()),
            RespVersion::V3 => encode::verbatim(&mut out, text.as_bytes()),
        }
        out
    }
}

fn server(dialogue: &RespDialogue) -> String {
    let uptime = dialogue.service.listener.clients.uptime();
    let port = dialogue
        .card
        .local
        .rsplit_once(':')
        .map_or("0", |(_, port)| port);
    format!(
        "redis_version:{REDIS_VERSION}\r\nbreccia_version:{}\r\nredis_mode:standalone\r\n\
         os:{}\r\narch_bits:64\r\nprocess_id:{}\r\ntcp_port:{port}\r\nserver_time_usec:{}\r\n\
         uptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::process::id(),
        clock::unix_ms().saturating_mul(1000),
        uptime / DAY,
    )
}

fn clients(dialogue: &RespDialogue) -> String {
    let cards = dialogue.service.listener.clients.cards();
    let blocked = cards.iter().filter(|card| card.is_blocked()).count();
    format!(
        "connected_clients:{}\r\ncluster_connections:0\r\nblocked_clients:{blocked}\r\n\
         tracking_clients:0\r\n",
        cards.len(),
    )
}

fn memory(_: &RespDialogue) -> String {
    let memory = process::memory();
    let (now, peak) = (human(memory.resident), human(memory.peak));
    format!(
        "used_memory:{0}\r\nused_memory_human:{now}\r\nused_memory_rss:{0}\r\n\
         used_memory_rss_human:{now}\r\nused_memory_peak:{1}\r\nused_memory_peak_human:{peak}\r\n\
         maxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n",
        memory.resident, memory.peak,
    )
}

/// `1.50M`, as Redis writes it.
fn human(bytes: u64) -> String {
    let units = [
        (1 << 40, 'T'),
        (1 << 30, 'G'),
        (1 << 20, 'M'),
        (1 << 10, 'K'),
    ];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size);
    let Some((size, unit)) = unit else {
        return format!("{bytes}B");
    };
    let hundredths = (u128::from(bytes) * 100 + u128::from(size) / 2) / u128::from(size);
    format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
}

fn stats(dialogue: &RespDialogue) -> String {
    let listener = &dialogue.service.listener;
    let requests = listener.registry.totals(&metrics::REQUESTS, "listener");
    let requests = requests.get(&listener.name).copied().unwrap_or(0);
    let mut text = format!(
        "total_connections_received:{}\r\ntotal_commands_processed:{requests}\r\n",
        listener.clients.admitted(),
    );
    if let Backend::Forward(forward) = &dialogue.service.backend {
        let count = |kind| forward.store.roster.names(kind, |_| true).len();
        let _ = write!(
            text,
            "pubsub_channels:{}\r\npubsub_patterns:{}\r\npubsubshard_channels:{}\r\n",
            count(Kind::Channel),
            count(Kind::Pattern),
            count(Kind::Shard),
        );
    }
    text
}

fn processor(_: &RespDialogue) -> String {
    let (user, system) = process::processor_seconds();
    format!("used_cpu_sys:{system:.6}\r\nused_cpu_user:{user:.6}\r\n")
}

/// Calls of each command, of all Redis and memcached listeners of the process.
fn commands(dialogue: &RespDialogue) -> String {
    let totals = dialogue
        .service
        .listener
        .registry
        .totals(&metrics::REQUESTS, "command");
    let mut text = String::new();
    for (name, calls) in totals {
        let _ = write!(text, "cmdstat_{name}:calls={calls}\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_by_redis() {
        let check = |bytes, text: &str| assert_eq!(human(bytes), text);
        check(0, "0B");
        check(1023, "1023B");
        check(1024, "1.00K");
        check(941_624, "919.55K");
        check(6_832_128, "6.52M");
        check(23_540_000_000, "21.92G");
    }
}
