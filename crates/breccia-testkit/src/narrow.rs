//! A connection of a client that has little room for what it is sent.
//!
//! No protocol. Invariant: its socket takes a few KiB; what else waits for it, the other side keeps.

use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

const ROOM: usize = 2304;

/// Connects to `address`, which is numbers, with a small receive buffer.
pub fn connect_narrow(address: &str) -> Result<TcpStream> {
    let address: SocketAddr = address.parse()?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(ROOM)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}
