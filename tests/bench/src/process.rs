//! What processes cost, by what the kernel says of them.

use std::fs;

/// A process and all that it started.
pub struct Family(Vec<u32>);

impl Family {
    /// As it is now. Children that come and go later count when they are gone, as their parent's.
    pub fn of(pid: u32) -> Self {
        let mut all = vec![pid];
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            let children = threads(*pid).filter_map(|thread| fs::read_to_string(thread.join("children")).ok());
            let found: Vec<u32> = children.flat_map(|text| numbers(&text)).collect();
            all.extend(found);
            at += 1;
        }
        Self(all)
    }

    /// CPU time of all its threads and of the children that ended, in nanoseconds; the kernel's part is in it.
    pub fn spent(&self) -> u64 {
        let of_threads = |pid| {
            let texts = threads(pid).filter_map(|thread| fs::read_to_string(thread.join("schedstat")).ok());
            texts.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        self.0.iter().map(|pid| of_threads(*pid) + of_ended_children(*pid)).sum()
    }

    /// Memory that it holds, in KiB; what several processes share is counted once.
    pub fn memory(&self) -> u64 {
        self.0.iter().filter_map(|pid| line(&format!("/proc/{pid}/smaps_rollup"), "Pss:")).sum()
    }
}

/// Memory that a process has resident, in KiB.
pub fn resident(pid: u32) -> u64 {
    line(&format!("/proc/{pid}/status"), "VmRSS:").unwrap_or_default()
}

/// The most that it ever had resident.
pub fn most_resident(pid: u32) -> u64 {
    line(&format!("/proc/{pid}/status"), "VmHWM:").unwrap_or_default()
}

fn threads(pid: u32) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// `cutime` and `cstime` of `/proc/PID/stat`, which counts in hundredths of a second.
fn of_ended_children(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the program's name, in parentheses, and may have spaces and parentheses of its own.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000_000
}

fn line(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    numbers(rest).first().copied()
}

fn numbers<T: std::str::FromStr>(text: &str) -> Vec<T> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
