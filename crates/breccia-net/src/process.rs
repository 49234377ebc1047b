//! What the system says of this process: memory and processor time.
//!
//! Read when somebody asks, never on the way of a request. Invariant: where the system does not say,
//! the answer is zero, never an error.

use std::fs;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In use now.
    pub resident: u64,
    /// The most there ever was.
    pub peak: u64,
}

/// The memory of this process.
#[must_use]
pub fn memory() -> Memory {
    memory_in(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn memory_in(status: &str) -> Memory {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next());
        kilobytes
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    Memory {
        resident: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    }
}

/// Seconds of processor time: the process's own, and the system's on its behalf.
#[must_use]
pub fn processor_seconds() -> (f64, f64) {
    processor_seconds_in(&fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

/// Ticks of the clock in which Linux tells processor time, in a second.
const TICKS: f64 = 100.0;

fn processor_seconds_in(stat: &str) -> (f64, f64) {
    // The name, in parentheses, may hold blanks.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_whitespace().skip(11);
    let mut seconds = || {
        let ticks: u32 = fields
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        f64::from(ticks) / TICKS
    };
    (seconds(), seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        let found = memory_in("Name:\tx\nVmHWM:\t   20 kB\nVmRSS:\t   16 kB\n");
        let wanted = Memory {
            resident: 16 << 10,
            peak: 20 << 10,
        };
        assert_eq!(found, wanted);
        assert_eq!(memory_in(""), Memory::default());
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(processor_seconds_in(stat), (2.5, 0.5));
        assert_eq!(processor_seconds_in(""), (0.0, 0.0));
    }
}
