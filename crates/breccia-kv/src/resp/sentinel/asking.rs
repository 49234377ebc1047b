//! Questions to all sentinels of a service at once, over connections that are kept.
//!
//! Not what follows from the answers. Invariant: a sentinel that is slow holds up nobody for long
//! once most have answered.

use std::collections::BTreeMap;
use std::time::Duration;

use breccia_core::address::Address;
use tokio::task::JoinSet;

use super::super::asker::{Asker, address, pairs, word};
use super::super::codec::reply::elements;
use super::choice::{Answer, Role};
use crate::endpoint::Place;

/// How long the rest is waited for once most have answered.
const GRACE: Duration = Duration::from_millis(50);

/// What one sentinel has said: of the primary, of further sentinels, and of replicas.
type Said = (Answer, Vec<Address>, Vec<Address>);

/// Sentinels, and the connections on which they are asked.
#[derive(Default)]
pub(super) struct Askers {
    kept: BTreeMap<Address, Asker>,
}

/// What came of a question to all.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) given: Vec<Answer>,
    /// Replicas, as each of those who answered has them.
    pub(super) replicas: BTreeMap<Address, Vec<Address>>,
    /// Further sentinels that were named.
    pub(super) others: Vec<Address>,
    /// What is wrong with the first of those that gave no answer.
    pub(super) trouble: Option<String>,
}

impl Askers {
    /// Asks every sentinel who the primary is.
    pub(super) async fn ask(
        &mut self,
        places: &BTreeMap<Address, Place>,
        service: &str,
        patience: Duration,
    ) -> Answers {
        let mut tasks = JoinSet::new();
        for place in places.values() {
            let kept = self.kept.remove(&place.address);
            let (place, service) = (place.clone(), service.to_owned());
            tasks.spawn(async move {
                let asked = tokio::time::timeout(patience, ask(kept, &place, &service)).await;
                let silent = || Err("it does not answer".to_owned());
                (place.address, asked.unwrap_or_else(|_| silent()))
            });
        }
        let mut found = Answers::default();
        loop {
            let most = found.given.len() > places.len() / 2;
            let limit = if most { GRACE } else { patience * 2 };
            let Ok(Some(ended)) = tokio::time::timeout(limit, tasks.join_next()).await else {
                return found;
            };
            match ended {
                Ok((address, Ok((asker, (answer, others, replicas))))) => {
                    self.kept.insert(address.clone(), asker);
                    found.replicas.insert(address, replicas);
                    found.given.push(answer);
                    found.others.extend(others);
                }
                Ok((address, Err(why))) => {
                    found
                        .trouble
                        .get_or_insert_with(|| format!("{address}: {why}"));
                }
                Err(_) => {}
            }
        }
    }
}

async fn ask(kept: Option<Asker>, place: &Place, service: &str) -> Result<(Asker, Said), String> {
    // A kept connection may have ended with the sentinel's last life: that alone shows nothing.
    if let Some(mut asker) = kept
        && let Ok(said) = question(&mut asker, place, service).await
    {
        return Ok((asker, said));
    }
    let mut asker = Asker::enter(place).await?;
    let said = question(&mut asker, place, service).await?;
    Ok((asker, said))
}

/// The address comes from the question that tells of a failover as soon as the new primary is
/// certain; the epoch is that of the configuration behind it.
async fn question(asker: &mut Asker, place: &Place, service: &str) -> Result<Said, String> {
    let name = service.as_bytes();
    asker.say(&[b"SENTINEL", b"MASTER", name]).await?;
    asker
        .say(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name])
        .await?;
    asker.say(&[b"SENTINEL", b"SENTINELS", name]).await?;
    asker.say(&[b"SENTINEL", b"REPLICAS", name]).await?;
    // All replies are taken before the first is judged: the connection stays usable.
    let (state, named) = (asker.reply().await, asker.reply().await);
    let (others, replicas) = (asker.reply().await, asker.reply().await);
    let (state, named) = (state?, named?);
    let number = |key: &str| {
        let mut pairs = pairs(&state);
        pairs.find_map(|(name, value)| (name == key).then_some(value))
    };
    let epoch = number("config-epoch").and_then(|epoch| epoch.parse().ok());
    let words: Vec<String> = elements(&named).into_iter().flatten().map(word).collect();
    let primary = match words.as_slice() {
        [host, port] => address(host, port),
        _ => None,
    };
    let answer = Answer {
        from: place.address.clone(),
        primary: primary.ok_or_else(|| format!("it names no primary of '{service}'"))?,
        epoch: epoch.ok_or("its configuration has no epoch")?,
    };
    let others = others.unwrap_or_default();
    let replicas = replicas.unwrap_or_default();
    Ok((
        answer,
        servers(&others, is_up),
        servers(&replicas, is_sound),
    ))
}

/// Whether a sentinel finds another one alive. It keeps those that are gone for ever.
fn is_up(state: &[(String, String)]) -> bool {
    let flags = state.iter().find(|(name, _)| name == "flags");
    !flags.is_some_and(|(_, flags)| flags.split(',').any(|flag| flag == "s_down"))
}

/// Whether a sentinel finds nothing wrong with a replica.
fn is_sound(state: &[(String, String)]) -> bool {
    let value = |key: &str| {
        let found = state.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value.as_str())
    };
    let wrong = ["s_down", "o_down", "disconnected"];
    let flags = value("flags");
    value("master-link-status") == "ok" && !flags.split(',').any(|flag| wrong.contains(&flag))
}

/// The addresses of those whose state is as wished.
fn servers(reply: &[u8], fits: impl Fn(&[(String, String)]) -> bool) -> Vec<Address> {
    let each = elements(reply).into_iter().flatten().filter_map(|server| {
        let state: Vec<(String, String)> = pairs(server).collect();
        let value = |key: &str| state.iter().find(|(name, _)| name == key);
        let ((_, host), (_, port)) = (value("ip")?, value("port")?);
        address(host, port).filter(|_| fits(&state))
    });
    each.collect()
}

/// The connection on which one server is asked for its role.
#[derive(Default)]
pub(super) struct RoleAsker {
    kept: Option<(Address, Asker)>,
}

impl RoleAsker {
    /// What the server at a place says it is.
    pub(super) async fn role(&mut self, place: &Place, patience: Duration) -> Role {
        let kept = self.kept.take().filter(|(at, _)| *at == place.address);
        let asking = async {
            if let Some((_, mut asker)) = kept
                && let Ok(role) = role(&mut asker).await
            {
                return Ok((asker, role));
            }
            let mut asker = Asker::enter(place).await?;
            let role = role(&mut asker).await?;
            Ok::<_, String>((asker, role))
        };
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok((asker, role))) => {
                self.kept = Some((place.address.clone(), asker));
                role
            }
            Ok(Err(why)) => Role::Silent(why),
            Err(_) => Role::Silent("it does not answer".to_owned()),
        }
    }
}

async fn role(asker: &mut Asker) -> Result<Role, String> {
    match asker.ask(&[b"ROLE"]).await {
        Ok(reply) => {
            let first = elements(&reply).and_then(|mut words| words.next());
            Ok(match first.map(word).as_deref() {
                Some("master") => Role::Primary,
                Some(_) => Role::Other,
                None => Role::Untold,
            })
        }
        // It is there, but the login may not ask, or something else runs.
        Err(why) if why.starts_with("answers ") => Ok(Role::Untold),
        Err(why) => Err(why),
    }
}
