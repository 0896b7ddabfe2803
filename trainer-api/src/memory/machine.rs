//! What this machine has, and what this process took.

use std::fs;

/// Bytes that this process may come to use, what it holds already included: what the kernel could
/// give without swapping, or the control group's limit where that is less. `None` where the system
/// does not say.
pub fn room() -> Option<u64> {
    let free = field("/proc/meminfo", "MemAvailable:")?;
    let room = free + field("/proc/self/status", "VmRSS:").unwrap_or(0);
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(group.map_or(room, |limit: u64| room.min(limit)))
}

/// The most bytes that this process ever held in memory (VmHWM). `None` where the system does not
/// say.
pub fn peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Bytes that this process holds in memory.
pub fn resident() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// A line "name: N kB".
fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
