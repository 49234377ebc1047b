//! Tests of the frontend over a socket.
