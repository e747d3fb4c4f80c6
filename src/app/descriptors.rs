//! How many connections fit into the file descriptors of the process.
//!
//! A connection takes a descriptor, and so does every connection to GitHub and to issuers. If
//! callers took them all, exchanges would fail.

/// Descriptors that are left for outbound connections, files and the metrics port at least.
const RESERVED: u64 = 96;

/// Raises the soft limit on file descriptors to the hard one; how many the process may have then.
pub(super) fn raise() -> Option<u64> {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => Some(limit),
        Err(error) => {
            tracing::warn!(%error, "the limit on file descriptors cannot be raised");
            None
        }
    }
}

/// How many connections to accept: as many as are wanted, but no more than fit.
pub(super) fn connections(wanted: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return wanted };
    let reserved = (descriptors / 4).max(RESERVED);
    let fit = usize::try_from(descriptors.saturating_sub(reserved)).unwrap_or(usize::MAX).max(1);
    if fit < wanted {
        tracing::warn!(
            descriptors,
            connections = fit,
            "file descriptors allow fewer connections than STS_MAX_CONNECTIONS"
        );
    }
    wanted.min(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_what_exchanges_need() {
        for (wanted, descriptors, connections_then) in [
            (4096, None, 4096),
            (4096, Some(1 << 20), 4096),
            (4096, Some(1024), 768),
            (8, Some(1024), 8),
            (4096, Some(256), 160),
            (8, Some(64), 1),
        ] {
            assert_eq!(
                connections(wanted, descriptors),
                connections_then,
                "{wanted} {descriptors:?}"
            );
        }
    }

    #[test]
    fn the_soft_limit_can_be_raised() {
        let raised = raise().unwrap();
        assert_eq!(rlimit::Resource::NOFILE.get().unwrap().0, raised);
    }
}
