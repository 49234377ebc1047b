//! What servers of a cluster say of each other (CLUSTER NODES), and what follows from it.
//!
//! Pure. Invariant: a slot belongs to whoever claims it with the highest configuration epoch, as
//! among the servers themselves; so an answer that is out of date does no harm beside a newer one.

use breccia_core::address::Address;

use super::super::asker::address;
use super::SLOTS;

/// One server of a cluster, as another one describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The cluster's own name of it, and of the primary that it follows.
    pub(super) id: String,
    pub(super) follows: String,
    pub(super) address: Address,
    /// The name it announces, if it has one: redirections may use it.
    pub(super) alias: Option<Address>,
    /// Whether the server says this of itself: it knows best.
    pub(super) is_own: bool,
    pub(super) is_primary: bool,
    /// Whether the cluster agrees that it is down.
    pub(super) has_failed: bool,
    pub(super) epoch: u64,
    /// First and last of each range of slots.
    pub(super) slots: Vec<(u16, u16)>,
}

/// Reads an answer. `asked` is the server that gave it: one that does not know its own address says
/// nothing of it.
pub(super) fn read(text: &str, asked: &Address) -> Vec<Described> {
    text.lines()
        .filter_map(|line| described(line, asked))
        .collect()
}

fn described(line: &str, asked: &Address) -> Option<Described> {
    let mut words = line.split(' ');
    let (id, place, flags) = (words.next()?, words.next()?, words.next()?);
    let follows = words.next()?;
    let flags: Vec<&str> = flags.split(',').collect();
    if ["noaddr", "handshake"]
        .iter()
        .any(|flag| flags.contains(flag))
    {
        return None;
    }
    // Ping, pong, epoch, link.
    let epoch = words.nth(2)?.parse().ok()?;
    words.next()?;
    let (place, names) = place.split_once(',').unwrap_or((place, ""));
    let (place, _) = place.split_once('@').unwrap_or((place, ""));
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = match host {
        "" if flags.contains(&"myself") => asked.host()?,
        host => host,
    };
    let name = names.split(',').next().filter(|name| !name.is_empty());
    Some(Described {
        id: id.to_owned(),
        follows: follows.to_owned(),
        address: address(host, port)?,
        alias: name.and_then(|name| address(name, port)),
        is_own: flags.contains(&"myself"),
        is_primary: flags.contains(&"master"),
        has_failed: flags.contains(&"fail"),
        epoch,
        slots: words.filter_map(range).collect(),
    })
}

/// `0-5460`, `77`; what is in brackets is on its way.
fn range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && usize::from(last) < SLOTS).then_some((first, last))
}

/// Who is there, and who owns which slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Everybody that somebody knows, each once, as the newest answer has it.
    pub(super) servers: Vec<Described>,
    /// The owner of each slot, by its place in `servers`.
    pub(super) owners: Vec<Option<usize>>,
    /// The epoch of each slot's claim; 0 where there is none.
    pub(super) epochs: Vec<u64>,
}

impl Merged {
    /// Pairs of places: a primary, and a replica of it that has not failed.
    pub(super) fn replicas(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let servers = || self.servers.iter().enumerate();
        servers().filter_map(move |(place, replica)| {
            let is_replica = !replica.is_primary && !replica.has_failed;
            let (primary, _) = servers().find(|(_, it)| is_replica && it.id == replica.follows)?;
            Some((primary, place))
        })
    }
}

/// Puts answers together.
pub(super) fn merge(answers: &[Vec<Described>]) -> Merged {
    let mut servers: Vec<Described> = Vec::new();
    let mut owners: Vec<Option<(u64, usize)>> = vec![None; SLOTS];
    for described in answers.iter().flatten() {
        let known = servers
            .iter()
            .position(|server| server.address == described.address);
        let place = match known {
            None => {
                servers.push(described.clone());
                servers.len() - 1
            }
            Some(place) => {
                if let Some(server) = servers.get_mut(place)
                    && (described.is_own || !server.is_own && described.epoch > server.epoch)
                {
                    *server = described.clone();
                }
                place
            }
        };
        if !described.is_primary {
            continue;
        }
        for (first, last) in &described.slots {
            let (first, last) = (usize::from(*first), usize::from(*last));
            for owner in owners.get_mut(first..=last).into_iter().flatten() {
                if owner.is_none_or(|(epoch, _)| described.epoch > epoch) {
                    *owner = Some((described.epoch, place));
                }
            }
        }
    }
    let epochs = owners.iter();
    let epochs = epochs.map(|owner| owner.map_or(0, |(epoch, _)| epoch));
    Merged {
        servers,
        epochs: epochs.collect(),
        owners: owners
            .into_iter()
            .map(|owner| owner.map(|(_, place)| place))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address::tcp(host, port).unwrap()
    }

    #[test]
    fn lines_tell_place_role_epoch_and_slots() {
        let asked = at("10.0.0.9", 7009);
        let text = "\
            a1 10.0.0.1:7001@17001 master - 0 1 3 connected 0-5 7 [93-<-b2] [77->-b2]\n\
            b2 :7009@17009,name.example myself,slave a1 0 1 3 connected\n\
            c3 ::1:7003@17003 master,fail - 0 1 2 disconnected 100-101\n\
            d4 :0@0 master,noaddr - 0 1 2 disconnected\n\
            nonsense\n\
            e5 10.0.0.5:7005@17005 master - 0 1 2 connected 9-8 20000\n";
        let found = read(text, &asked);
        let shown: Vec<_> = found
            .iter()
            .map(|it| {
                (
                    it.address.to_string(),
                    it.is_primary,
                    it.epoch,
                    it.slots.len(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.1:7001".to_owned(), true, 3, 2),
                ("10.0.0.9:7009".to_owned(), false, 3, 0),
                ("[::1]:7003".to_owned(), true, 2, 1),
                ("10.0.0.5:7005".to_owned(), true, 2, 0),
            ]
        );
        assert_eq!(found[0].slots, [(0, 5), (7, 7)]);
        let merged = merge(std::slice::from_ref(&found));
        assert_eq!(merged.replicas().collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(found[1].alias, Some(at("name.example", 7009)));
        assert!(found[2].has_failed && !found[0].has_failed);
    }

    #[test]
    fn the_newest_claim_of_a_slot_counts() {
        let asked = at("h", 1);
        let old = read(
            "a h:1@2 master - 0 0 1 connected 0-9\nb h:2@3 slave a 0 0 1 connected\n",
            &asked,
        );
        let new = read(
            "a h:1@2 master,fail - 0 0 1 connected\nb h:2@3 master - 0 0 4 connected 0-9\n",
            &asked,
        );
        for answers in [[old.clone(), new.clone()], [new, old]] {
            let merged = merge(&answers);
            let owner = merged.owners[9].map(|place| merged.servers[place].address.clone());
            assert_eq!(owner, Some(at("h", 2)));
            assert_eq!(merged.owners[10], None);
            assert_eq!(merged.servers.len(), 2);
        }
    }
}
