//! Which boot of the host the clock counts from.

use std::path::Path;

use lock_core::{ErrorKind, StoreError};

/// The id of this boot of the host: all processes of one host agree on it, and a reboot changes it.
///
/// Where the system has none (only Linux has), it is a constant: leases of before a reboot may then look taken for
/// as long as the host had been up, which is late and never early.
///
/// # Errors
/// [`ErrorKind::Unsupported`] in a time namespace of its own, whose `CLOCK_BOOTTIME` is not the host's.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    if let Ok(offsets) = std::fs::read_to_string(Path::new("/proc/self/timens_offsets"))
        && is_shifted(&offsets)
    {
        return Err(StoreError::refused(
            ErrorKind::Unsupported,
            "this process lives in a time namespace with a clock of its own, so its leases can't be compared with \
             the host's other processes; start it in the host's time namespace",
        ));
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(if id.trim().is_empty() { "unknown".to_owned() } else { id.trim().to_owned() })
}

/// Reads lines like `boottime 0 0`: seconds and nanoseconds (time_namespaces(7)).
fn is_shifted(offsets: &str) -> bool {
    offsets
        .lines()
        .filter_map(|line| line.trim().strip_prefix("boottime"))
        .any(|offset| offset.split_whitespace().any(|n| n != "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_an_id() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert!(!boot_id().unwrap().contains('\n'));
    }

    #[test]
    fn a_shifted_boot_clock_is_told() {
        assert!(!is_shifted("monotonic           0         0\nboottime            0         0\n"));
        assert!(!is_shifted("monotonic           5         0\nboottime            0         0\n"));
        assert!(is_shifted("monotonic           0         0\nboottime      -86400         0\n"));
    }
}
