//! What is asked of a server that stops answering meanwhile.
//!
//! Not whether it does: its prober finds that out. Invariant: nobody waits for a server longer than it
//! takes to notice that it is down.

use std::future::Future;
use std::time::Duration;

use breccia_net::health::EndpointHealth;

use crate::error::SqlError;

/// How often one that waits looks whether its server is what it was.
const LOOK: Duration = Duration::from_millis(100);

/// While a server is known to be down, nobody waits for what it would take to notice that anew.
pub(crate) fn check_up(health: &EndpointHealth, server: &str) -> Result<(), SqlError> {
    match health.down() {
        None => Ok(()),
        Some(reason) => Err(SqlError::Down {
            server: server.to_owned(),
            why: reason.text,
        }),
    }
}

/// Does something with a server, or ends once that is known to be down.
pub(crate) async fn until_down<T>(
    doing: impl Future<Output = Result<T, SqlError>>,
    health: &EndpointHealth,
    server: &str,
) -> Result<T, SqlError> {
    let goes_down = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = check_up(health, server) {
                return error;
            }
        }
    };
    // Futures within futures grow the stack of every session; this is no hot path.
    let doing = Box::pin(doing);
    tokio::select! {
        biased;
        done = doing => done,
        error = goes_down => Err(error),
    }
}
