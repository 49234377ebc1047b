//! Listening sockets: binding them and taking connections from them.
//!
//! Not the service behind them. Invariant: a port is never shared. A second process that binds it
//! is told that it is taken, so no `SO_REUSEPORT`.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::clock;
use crate::error::{NetError, plain_reason};
use crate::log_gate::LogGate;
use crate::stream::{self, Stream};

/// Connections the system keeps waiting until they are accepted.
pub(crate) const BACKLOG: i32 = 1024;
/// The first pause after the system refused to accept; it doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

static ACCEPT_TROUBLE: LogGate = LogGate::new(Duration::from_secs(10));

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Bind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Bind {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let wrong = || NetError::BindSyntax {
            text: text.to_owned(),
        };
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err(wrong()),
            None => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

/// A bound listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    bind: Bind,
    /// Device and inode of the socket's file, to remove only what was made here.
    file: Option<(u64, u64)>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that no runtime has registered yet.
#[derive(Debug)]
pub(crate) enum Taken {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Taken {
    /// Registers the connection with the runtime this is called in.
    pub(crate) fn register(self) -> io::Result<stream::Socket> {
        match self {
            Self::Tcp(stream) => {
                let stream = TcpStream::from_std(stream)?;
                stream::tune(&stream)?;
                Ok(stream::Socket::Tcp(stream.into()))
            }
            Self::Unix(stream) => Ok(stream::Socket::Unix(UnixStream::from_std(stream)?)),
        }
    }

    /// Tries to send a line, without waiting: a fresh socket has room for it.
    pub(crate) fn try_tell(self, line: &[u8]) {
        // If it cannot be sent, the client just sees the end.
        let _ = match self {
            Self::Tcp(mut stream) => stream.write(line),
            Self::Unix(mut stream) => stream.write(line),
        };
    }
}

impl Listener {
    /// Binds and listens. With port 0 the system chooses one; [`Listener::bind`] tells it.
    ///
    /// Must be called inside a tokio runtime, the one that will accept.
    pub fn open(bind: &Bind) -> Result<Self, NetError> {
        let ready = match bind {
            Bind::Tcp(address) => listen_tcp(*address),
            Bind::Unix(path) => listen_unix(path),
        };
        ready.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => NetError::AddressTaken {
                bind: bind.to_string(),
            },
            _ => NetError::Bind {
                bind: bind.to_string(),
                source,
            },
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn bind(&self) -> &Bind {
        &self.bind
    }

    /// The next connection, not blocking, and the peer's address as text.
    ///
    /// Troubles of the machine (no file descriptors left) are logged and waited out here.
    pub(crate) async fn accept(&self) -> (Taken, String) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.accept_one().await {
                Ok(taken) => return taken,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if let Some(held_back) = ACCEPT_TROUBLE.pass(clock::now()) {
                        tracing::error!(
                            bind = %self.bind,
                            reason = plain_reason(&error),
                            held_back,
                            "connections cannot be accepted; if file descriptors ran out, raise \
                             the limit (ulimit -n) or lower max-clients"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The next connection as a stream of this runtime, and the peer's address as text.
    pub async fn next(&self) -> (Stream, String) {
        loop {
            let (taken, peer) = self.accept().await;
            // A connection that cannot be registered is gone already.
            if let Ok(socket) = taken.register() {
                return (socket.into(), peer);
            }
        }
    }

    /// Leaves registration to the worker: the stream is taken out of this runtime again.
    async fn accept_one(&self) -> io::Result<(Taken, String)> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Taken::Tcp(stream.into_std()?), peer.to_string()))
            }
            Listening::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Taken::Unix(stream.into_std()?), "unix".to_owned()))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let (Bind::Unix(path), Some(file)) = (&self.bind, self.file)
            && identity(path).is_ok_and(|found| found == file)
        {
            // What cannot be removed is found to be stale at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Errors that concern one connection that is gone already, not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

fn listen_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Lets a restart bind over connections in TIME_WAIT; it does not let two processes listen.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let bind = Bind::Tcp(listener.local_addr()?);
    Ok(Listener {
        socket: Listening::Tcp(listener),
        bind,
        file: None,
    })
}

fn listen_unix(path: &Path) -> io::Result<Listener> {
    let socket = open_unix(path)?;
    let file = Some(identity(path)?);
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    Ok(Listener {
        socket: Listening::Unix(listener),
        bind: Bind::Unix(path.to_owned()),
        file,
    })
}

fn open_unix(path: &Path) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &address) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether `path` is a socket that nobody listens on.
fn is_stale(path: &Path, address: &SockAddr) -> bool {
    if !path
        .symlink_metadata()
        .is_ok_and(|found| found.file_type().is_socket())
    {
        return false;
    }
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    Socket::new(Domain::UNIX, Type::STREAM, None)
        .and_then(|socket| socket.connect(address))
        .is_err_and(refused)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.symlink_metadata()?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_read_and_written() {
        let check = |text: &str| {
            let bind: Bind = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(bind.to_string(), text);
        };
        check("127.0.0.1:6380");
        check("[::1]:0");
        check("unix:/run/breccia/cache.sock");
        for wrong in [
            "",
            "6380",
            "localhost:6380",
            "unix:cache.sock",
            "127.0.0.1:99999",
        ] {
            let error = wrong.parse::<Bind>().expect_err(wrong).to_string();
            assert!(error.contains("unix:/path"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let first = Listener::open(&any).expect("the first listener binds");
        let error = Listener::open(first.bind()).expect_err("the second one must not");
        assert!(matches!(error, NetError::AddressTaken { .. }), "{error:?}");
        assert!(
            error.to_string().contains(&first.bind().to_string()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sock");
        let bind = Bind::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket to go stale"));
        let first = Listener::open(&bind).expect("a stale socket is replaced");
        let error = Listener::open(&bind).expect_err("a live one is not");
        assert!(matches!(error, NetError::AddressTaken { .. }), "{error:?}");
        assert!(path.exists());
        drop(first);
        assert!(!path.exists(), "the socket's file goes with its listener");
        std::fs::write(&path, "precious").expect("a file");
        Listener::open(&bind).expect_err("other files are left alone");
        assert_eq!(std::fs::read(&path).expect("the file"), b"precious");
    }
}
