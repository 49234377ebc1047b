//! A connection of a client that has little room for what it is sent.
//!
//! No protocol. Invariant: its socket takes about what was asked for; what else waits for it, the other side keeps.

use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

/// Connects to `address`, which is numbers, with a receive buffer of `room` bytes.
pub fn connect_narrow(address: &str, room: usize) -> Result<TcpStream> {
    let address: SocketAddr = address.parse()?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(room)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}
