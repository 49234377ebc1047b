//! Whose answers count: those of the cluster's own servers.
//!
//! Pure. Invariant: a server that nobody of the cluster knows says nothing of the cluster, whatever
//! epochs and slots it claims: somebody else's may stand at an address that was one of ours.

use std::collections::BTreeSet;

use breccia_core::address::Address;

use super::described::Described;

/// Seeds that must agree before they are believed against what is remembered, the fewest.
const FEWEST_SEEDS: usize = 2;

/// What one server has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Where it was asked.
    pub(super) from: Address,
    pub(super) servers: Vec<Described>,
}

impl Answer {
    /// What it says of itself.
    pub(super) fn own(&self) -> Option<&Described> {
        self.servers.iter().find(|it| it.is_own)
    }

    fn ids(&self) -> BTreeSet<&str> {
        self.servers.iter().map(|it| it.id.as_str()).collect()
    }
}

/// Answers, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sifted {
    pub(super) ours: Vec<Answer>,
    pub(super) foreign: Vec<Answer>,
    /// Whether most seeds agree that the cluster is another one than was remembered.
    pub(super) replaced: bool,
}

/// Tells answers of the cluster from others. `known` are the ids of its servers, none before the
/// first look: then most of the seeds are believed.
pub(super) fn sift(answers: Vec<Answer>, known: &BTreeSet<String>, seeds: &[Address]) -> Sifted {
    let mut ours = members(&answers, known);
    let mut replaced = false;
    if ours.len() < answers.len() {
        let groups = groups(&answers);
        let rank = |group: &BTreeSet<usize>| {
            let ids = |of_seeds: bool| {
                let counted = answers.iter().enumerate().filter(|(place, it)| {
                    group.contains(place) && (!of_seeds || seeds.contains(&it.from))
                });
                let own = counted.filter_map(|(_, it)| Some(it.own()?.id.as_str()));
                own.collect::<BTreeSet<_>>().len()
            };
            let told = answers.iter().enumerate();
            let told = told.filter(|(place, _)| group.contains(place));
            let told: BTreeSet<&str> = told.flat_map(|(_, it)| it.ids()).collect();
            (ids(true), ids(false), told.len())
        };
        // Of equals the first: `max_by_key` would take the last.
        let best = groups.iter().rev().max_by_key(|group| rank(group));
        if let Some(best) = best.filter(|best| **best != ours) {
            let ((agree, many, _), (_, remembered, _)) = (rank(best), rank(&ours));
            let outvoted = agree >= FEWEST_SEEDS && agree > seeds.len() / 2 && many > remembered;
            replaced = !known.is_empty() && best.is_disjoint(&ours) && outvoted;
            if known.is_empty() || replaced {
                ours.clone_from(best);
            }
        }
    }
    let mut sifted = Sifted {
        replaced,
        ..Sifted::default()
    };
    for (place, answer) in answers.into_iter().enumerate() {
        if ours.contains(&place) {
            sifted.ours.push(answer);
        } else {
            sifted.foreign.push(answer);
        }
    }
    sifted
}

/// The places of those who are known, or whom they know.
fn members(answers: &[Answer], known: &BTreeSet<String>) -> BTreeSet<usize> {
    let mut known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (place, answer) in answers.iter().enumerate() {
            let is_known = answer
                .own()
                .is_some_and(|it| known.contains(it.id.as_str()));
            if is_known && found.insert(place) {
                known.extend(answer.ids());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Groups of places: those in one know each other, if only over others.
fn groups(answers: &[Answer]) -> Vec<BTreeSet<usize>> {
    let mut groups: Vec<(BTreeSet<&str>, BTreeSet<usize>)> = Vec::new();
    for (place, answer) in answers.iter().enumerate() {
        let (mut ids, mut places) = (answer.ids(), BTreeSet::from([place]));
        groups.retain(|(others, them)| {
            let apart = ids.is_disjoint(others);
            if !apart {
                ids.extend(others);
                places.extend(them);
            }
            apart
        });
        groups.push((ids, places));
    }
    groups.sort_by_key(|(_, places)| places.first().copied());
    groups.into_iter().map(|(_, places)| places).collect()
}

#[cfg(test)]
mod tests {
    use super::super::described::read;
    use super::*;

    fn at(port: u16) -> Address {
        Address::tcp("h", port).unwrap()
    }

    /// An answer from a port: the ids it names, first its own.
    fn answer(port: u16, ids: &str) -> Answer {
        let mut text = String::new();
        for (place, id) in ids.chars().enumerate() {
            let flags = if place == 0 {
                "myself,master"
            } else {
                "master"
            };
            let other = 100 + u32::from(id);
            let port = if place == 0 { u32::from(port) } else { other };
            text.extend([format!(
                "{id} h:{port}@9 {flags} - 0 0 1 connected 0-16383\n"
            )]);
        }
        Answer {
            from: at(port),
            servers: read(&text, &at(port)),
        }
    }

    fn check(answers: &[Answer], known: &str, seeds: &[u16], ours: &[u16], replaced: bool) {
        let known = known.chars().map(String::from).collect();
        let seeds: Vec<Address> = seeds.iter().map(|port| at(*port)).collect();
        let sifted = sift(answers.to_vec(), &known, &seeds);
        let found: Vec<Address> = sifted.ours.iter().map(|it| it.from.clone()).collect();
        let wanted: Vec<Address> = ours.iter().map(|port| at(*port)).collect();
        assert_eq!((found, sifted.replaced), (wanted, replaced), "{answers:?}");
        assert_eq!(sifted.foreign.len(), answers.len() - ours.len());
    }

    #[test]
    fn a_server_that_nobody_knows_is_not_believed() {
        let (a, b, foreign) = (answer(1, "abc"), answer(2, "bac"), answer(3, "x"));
        let all = [a.clone(), foreign.clone(), b.clone()];
        check(&all, "abc", &[1, 2, 3], &[1, 2], false);
        check(&all, "abc", &[3], &[1, 2], false);
        // Alone, it is not believed either: not even if it is the only seed.
        check(std::slice::from_ref(&foreign), "abc", &[3], &[], false);
        // That it names ours does not make it ours.
        check(&[a.clone(), answer(3, "xabc")], "abc", &[3], &[1], false);
        // One that has just joined is named by the others.
        check(
            &[answer(4, "d"), answer(1, "abcd")],
            "abc",
            &[1],
            &[4, 1],
            false,
        );
    }

    #[test]
    fn at_first_most_seeds_are_believed() {
        let (a, b, foreign) = (answer(1, "abc"), answer(2, "bac"), answer(3, "xyzvw"));
        check(
            &[foreign.clone(), a.clone(), b],
            "",
            &[3, 1, 2],
            &[1, 2],
            false,
        );
        check(std::slice::from_ref(&foreign), "", &[3, 1], &[3], false);
        // Of as many, those who know more, and then whoever is first.
        check(&[a.clone(), foreign.clone()], "", &[1, 3], &[3], false);
        check(&[a, answer(2, "xyz")], "", &[1, 2], &[1], false);
    }

    #[test]
    fn most_seeds_may_say_that_the_cluster_is_another_one() {
        let (x, y, old) = (answer(1, "xyz"), answer(2, "yxz"), answer(3, "abc"));
        check(
            &[x.clone(), y.clone(), old],
            "abc",
            &[1, 2, 3],
            &[1, 2],
            true,
        );
        check(&[x.clone(), y], "abc", &[1, 2, 3], &[1, 2], true);
        // One server under two names is one.
        check(&[x, answer(2, "xyz")], "abc", &[1, 2], &[], false);
    }
}
