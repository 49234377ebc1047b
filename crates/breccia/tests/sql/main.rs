//! A PostgreSQL primary with two standbys behind one gateway, as clients see it.
//!
//! Not the parts of the slice, which have tests of their own. Invariant: where a statement ran is
//! read from the servers' logs, never taken from the gateway's word.

mod away;
mod bounds;
mod clients;
mod corpus;
mod dice;
mod doubt;
mod faults;
mod freshness;
mod frozen;
mod honest;
mod isolation;
mod lazy;
mod leaving;
mod lexer;
mod limits;
mod load;
mod logins;
mod own;
mod pausing;
mod pins;
mod plans;
mod pooling;
mod positions;
mod prepared;
mod promotion;
mod relay;
mod reload;
mod review;
mod rig;
mod roles;
mod routing;
mod secure;
mod seeing;
mod sessions;
mod share;
mod silence;
mod state;
mod tls;
mod too_long;
mod upstream_tls;
