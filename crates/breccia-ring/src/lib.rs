//! Many sends in one system call, by `io_uring`.
//!
//! Not a runtime and not a way to wait: no send here ever waits for a socket. It is the one crate of
//! ours with `unsafe` code; docs/decisions/0013 says why. Invariant: whatever bytes the system was
//! pointed at, it is done with before the call returns.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, opcode, types};

/// A call that signals interrupt this often in a row is not interrupted by signals.
const MOST_INTERRUPTIONS: u32 = 1000;

/// Bytes for one socket.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// A connected stream socket.
    pub socket: BorrowedFd<'a>,
    /// What to send; of more than `u32::MAX` bytes only the beginning is sent.
    pub bytes: &'a [u8],
}

/// A ring whose only use is to send.
pub struct SendRing {
    /// `None` once it has failed: what was queued is never carried out.
    ring: Option<IoUring>,
    /// How many pieces go into one call.
    most: usize,
    /// For each piece of the last call: the bytes that were taken, or the negative error number.
    outcomes: Vec<Option<i32>>,
}

impl std::fmt::Debug for SendRing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SendRing")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl SendRing {
    /// A ring for up to `most` pieces a system call (a power of two).
    ///
    /// # Errors
    ///
    /// What the system says where it has no `io_uring`, or allows none: `ENOSYS` before Linux 5.1,
    /// `EINVAL` before 5.6, `EPERM` under the usual profiles of containers.
    pub fn new(most: u32) -> io::Result<Self> {
        let ring = IoUring::builder().build(most)?;
        let mut ring = Self {
            ring: Some(ring),
            most: most as usize,
            outcomes: Vec::new(),
        };
        ring.try_out()?;
        Ok(ring)
    }

    /// Sends one byte: a system can have rings and no sends in them, or forbid what comes after the setup.
    fn try_out(&mut self) -> io::Result<()> {
        let (near, far) = UnixStream::pair()?;
        self.send(&[Piece {
            socket: near.as_fd(),
            bytes: b"?",
        }])?;
        let mut byte = [0];
        far.set_nonblocking(true)?;
        match (self.outcome(0), (&far).read(&mut byte)) {
            (Some(Ok(1)), Ok(1)) if byte == *b"?" => Ok(()),
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends each piece as far as its socket takes it now. [`SendRing::outcome`] tells for each how many bytes
    /// were taken, or why none: `WouldBlock` if the socket has no room. Of two pieces for one socket the
    /// second can be taken though the first was cut short, so there should be one.
    ///
    /// # Errors
    ///
    /// If the ring itself fails, and then for ever. Pieces whose outcome is known by then can have
    /// been sent, so a caller asks [`SendRing::outcome`] before it sends anything again.
    pub fn send(&mut self, pieces: &[Piece<'_>]) -> io::Result<()> {
        self.outcomes.clear();
        self.outcomes.resize(pieces.len(), None);
        let mut first = 0;
        for batch in pieces.chunks(self.most) {
            if let Err(error) = self.carry_out(first, batch) {
                // Entries may still be queued that point at what the caller only lends. A ring that is
                // closed never carries them out.
                self.ring = None;
                return Err(error);
            }
            first += batch.len();
        }
        Ok(())
    }

    /// What became of a piece of the last [`SendRing::send`]; `None`: nothing of it was sent.
    pub fn outcome(&self, piece: usize) -> Option<io::Result<usize>> {
        let outcome = self.outcomes.get(piece).copied().flatten()?;
        Some(usize::try_from(outcome).map_err(|_| io::Error::from_raw_os_error(-outcome)))
    }

    /// Queues a batch that fits, and returns when the system is done with all of it, or with an error
    /// while the rest is known not to have begun.
    #[expect(unsafe_code, reason = "the ring is handed addresses")]
    fn carry_out(&mut self, first: usize, batch: &[Piece<'_>]) -> io::Result<()> {
        let ring = self.ring.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        for (number, piece) in batch.iter().enumerate() {
            let length = u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX);
            let socket = types::Fd(piece.socket.as_raw_fd());
            let entry = opcode::Send::new(socket, piece.bytes.as_ptr(), length)
                // A request that must not wait is carried out or refused while it is submitted.
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(number as u64);
            // SAFETY: the entry points at `piece.bytes`, which is borrowed until this function has
            // returned. It does not return before the system has told the outcome of the entry, or,
            // on an error, while the entry was not submitted; then the caller closes the ring.
            let pushed = unsafe { ring.submission().push(&entry) };
            pushed.map_err(|_| io::Error::other("the ring's queue is full"))?;
        }
        let mut left = batch.len();
        let mut interrupted = 0;
        while left > 0 {
            match ring.submit_and_wait(left) {
                Ok(_) => interrupted = 0,
                // The system refuses a call only where it has begun nothing in it. What an earlier
                // call began is waited for.
                Err(error) => {
                    let waits = ring.submission().len() == left;
                    interrupted += 1;
                    let again = error.kind() == io::ErrorKind::Interrupted;
                    if waits && !(again && interrupted < MOST_INTERRUPTIONS) {
                        return Err(error);
                    }
                }
            }
            for completion in ring.completion() {
                let number = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                if let Some(outcome) = self.outcomes.get_mut(first.saturating_add(number)) {
                    *outcome = Some(completion.result());
                }
                left = left.saturating_sub(1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
