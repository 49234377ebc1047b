//! A connection: TCP or a Unix socket, plain or under TLS.
//!
//! Not a pool and not a protocol. Invariant: every TCP connection made or taken here has Nagle's
//! algorithm off and keep-alive on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use breccia_core::address::Address;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::drain::Drain;
use crate::error::NetError;
use crate::tcp::Tcp;
use crate::tls::TlsClient;

/// Sends `$body` to whatever is inside.
macro_rules! inner {
    ($stream:expr, $($variant:path)|+ , $inner:ident => $body:expr) => {
        match $stream {
            $($variant($inner) => $body,)+
        }
    };
}

/// A socket without TLS.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(Tcp),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A connection in either direction.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(Tcp),
    /// A plain Unix socket.
    Unix(UnixStream),
    /// TLS, this end is the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// TLS, this end is the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<Socket>>),
    /// A pipe to another thread of this process.
    Pipe(DuplexStream),
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(stream) => Self::Tcp(stream),
            Socket::Unix(stream) => Self::Unix(stream),
        }
    }
}

impl Stream {
    /// Whether TLS lies between the peers.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::TlsServer(_) | Self::TlsClient(_))
    }
}

impl Socket {
    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_sent(context),
            Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }
}

impl Stream {
    /// Waits until all that was written is the system's, for at most `limit`, and not while what is left is
    /// being closed: for the end of a connection. Who reads late then has the time that any answer has.
    pub async fn sent(&self, limit: Duration, drain: &Drain) {
        let sent = std::future::poll_fn(|context| match self {
            Self::Tcp(tcp) => tcp.poll_sent(context),
            Self::TlsServer(tls) => tls.get_ref().0.poll_sent(context),
            Self::TlsClient(tls) => tls.get_ref().0.poll_sent(context),
            Self::Unix(_) | Self::Pipe(_) => Poll::Ready(Ok(())),
        });
        tokio::select! {
            biased;
            // What cannot be sent is nothing to wait for.
            _ = tokio::time::timeout(limit, sent) => {}
            () = drain.closing() => {}
        }
    }
}

/// Connects to `address`, under TLS if told so, all within `timeout`. Names are resolved anew.
pub async fn connect(
    address: &Address,
    tls: Option<&TlsClient>,
    timeout: Duration,
) -> Result<Stream, NetError> {
    let connecting = async {
        let socket = open(address).await.map_err(|source| NetError::Connect {
            address: address.to_string(),
            source,
        })?;
        match tls {
            None => Ok(Stream::from(socket)),
            Some(tls) => tls
                .handshake(socket)
                .await
                .map(|stream| Stream::TlsClient(Box::new(stream)))
                .map_err(|source| NetError::Handshake {
                    peer: address.to_string(),
                    source,
                }),
        }
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(done) => done,
        Err(_) => Err(NetError::ConnectTimeout {
            address: address.to_string(),
            after: timeout,
        }),
    }
}

async fn open(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            tune(&stream)?;
            Ok(Socket::Tcp(stream.into()))
        }
        Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}

/// The socket options every TCP connection gets.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(20))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Half-closes, then reads to the end for at most `limit`: a socket closed over unread bytes would
/// answer with a reset, which may destroy the last reply on its way to the peer.
pub async fn close_gently<S>(stream: &mut S, limit: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closing = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut scrap = vec![0; 16 * 1024];
        while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
    };
    let _ = tokio::time::timeout(limit, closing).await;
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix, inner =>
            Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix, inner =>
            Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix, inner =>
            Pin::new(inner).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix, inner =>
            Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix, inner =>
            Pin::new(inner).poll_shutdown(context))
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix | Self::TlsServer | Self::TlsClient | Self::Pipe, inner =>
            Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix | Self::TlsServer | Self::TlsClient | Self::Pipe, inner =>
            Pin::new(inner).poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix | Self::TlsServer | Self::TlsClient | Self::Pipe, inner =>
            Pin::new(inner).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        inner!(self, Self::Tcp | Self::Unix | Self::TlsServer | Self::TlsClient | Self::Pipe, inner =>
            inner.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix | Self::TlsServer | Self::TlsClient | Self::Pipe, inner =>
            Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), Self::Tcp | Self::Unix | Self::TlsServer | Self::TlsClient | Self::Pipe, inner =>
            Pin::new(inner).poll_shutdown(context))
    }
}
