//! One sentinel's events, as they are published.
//!
//! Not what follows from them. Invariant: an event is news of one service, and only a hint: the
//! server that it names is asked before anybody believes it.

use std::time::Duration;

use breccia_core::address::Address;
use tokio::sync::mpsc;

use super::super::asker::{Asker, address, word};
use super::super::codec::reply::elements;
use crate::endpoint::Place;

/// The pause before another attempt to subscribe.
const RETRY: Duration = Duration::from_secs(1);
/// How long a sentinel may take to let us subscribe.
const ENTER_LIMIT: Duration = Duration::from_secs(5);

/// What is subscribed: the steps of a failover from which a new primary is known.
///
/// The first is heeded although the other sentinels' agreement comes up to a second later: by hand
/// the former primary goes on acknowledging in that second, and all of it would be lost.
const CHANNELS: [&[u8]; 4] = [
    b"+failover-state-wait-promotion",
    b"+promoted-slave",
    b"+config-update-from",
    b"+switch-master",
];

/// Somebody may be the primary now, or will soon be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hint {
    /// The sentinel that says so.
    pub(super) from: Address,
    /// Whom it has chosen, if this event says it.
    pub(super) chosen: Option<Address>,
}

/// Gives on every event of a service, for ever.
pub(super) async fn listen(place: Place, service: String, hints: mpsc::Sender<Hint>) {
    loop {
        if let Ok(Ok(mut asker)) = tokio::time::timeout(ENTER_LIMIT, subscribe(&place)).await {
            while let Ok(message) = asker.reply().await {
                if let Some(hint) = read(&message, &service, &place.address) {
                    // Full: a look is due anyway.
                    let _ = hints.try_send(hint);
                }
            }
        }
        if hints.is_closed() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn subscribe(place: &Place) -> Result<Asker, String> {
    let mut asker = Asker::enter(place).await?;
    let mut words: Vec<&[u8]> = vec![b"SUBSCRIBE"];
    words.extend(CHANNELS);
    asker.say(&words).await?;
    Ok(asker)
}

/// What a message of a sentinel says of the service, if it is about it.
fn read(message: &[u8], service: &str, from: &Address) -> Option<Hint> {
    let words: Vec<String> = elements(message)?.map(word).collect();
    let [kind, channel, text] = words.as_slice() else {
        return None;
    };
    let said: Vec<&str> = text.split(' ').collect();
    let (name, chosen) = match (channel.as_str(), said.as_slice()) {
        // TYPE NAME HOST PORT @ SERVICE …
        ("+switch-master", [name, ..]) | ("+config-update-from", [_, _, _, _, "@", name, ..]) => {
            (name, None)
        }
        (_, ["slave", _, host, port, "@", name, ..]) => (name, Some(address(host, port)?)),
        _ => return None,
    };
    let from = from.clone();
    (kind == "message" && *name == service).then_some(Hint { from, chosen })
}

#[cfg(test)]
mod tests {
    use super::super::super::encode;
    use super::*;

    #[test]
    fn events_of_the_service_name_the_chosen_server() {
        let check = |channel: &str, text: &str, expected: Option<Option<u16>>| {
            let mut message = Vec::new();
            let words = [b"message".as_slice(), channel.as_bytes(), text.as_bytes()];
            encode::request(&mut message, &words);
            let at = |port| Address::tcp("10.0.0.2", port).unwrap();
            let found = read(&message, "mine", &at(1)).map(|hint| hint.chosen);
            assert_eq!(found, expected.map(|port| port.map(at)), "{channel} {text}");
        };
        let chosen = "slave 10.0.0.2:7002 10.0.0.2 7002 @ mine 10.0.0.1 7001";
        check("+promoted-slave", chosen, Some(Some(7002)));
        check("+failover-state-wait-promotion", chosen, Some(Some(7002)));
        let other = "slave 10.0.0.2:7002 10.0.0.2 7002 @ other 10.0.0.1 7001";
        check("+promoted-slave", other, None);
        let switch = "mine 10.0.0.1 7001 10.0.0.2 7002";
        check("+switch-master", switch, Some(None));
        check("+switch-master", "other 10.0.0.1 7001 10.0.0.2 7002", None);
        let update = "sentinel abc 10.0.0.9 26379 @ mine 10.0.0.1 7001";
        check("+config-update-from", update, Some(None));
        check("+promoted-slave", "slave", None);
    }
}
